"""Virtual environments, one for each runtime, made once and kept in the user's cache."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_plan.matrix.pythons import NoPython, Pythons
from device_plan.matrix.table import RuntimeSpec

#: Written last into an environment; one without it was not finished.
READY = "ready.json"

#: Seconds after which pip is given up.
INSTALL_TIMEOUT_S = 1800

#: How much of pip's complaint is shown.
_LAST_LINES = 3


class Unavailable(Exception):
    """The runtime cannot be had on this machine; the message says why."""


@dataclass(frozen=True)
class Environment:
    """Where a runtime is installed.

    Attributes:
        python: The environment's interpreter.
        install_s: Seconds that making it took; None if it was there.
    """

    python: Path
    install_s: float | None = None


class Environments:
    """Makes and keeps environments; several processes may share one cache.

    Args:
        cache: The directory that holds them; made on demand.
        pythons: Where interpreters are found.

    Attributes:
        cache: The directory.
    """

    def __init__(self, cache: Path | None = None, pythons: Pythons | None = None) -> None:
        self.cache = cache or user_cache()
        self._pythons = pythons or Pythons()

    def path(self, runtime: RuntimeSpec) -> Path:
        """Where the runtime's environment is or will be."""
        wanted = json.dumps([runtime.python, *runtime.requirements])
        digest = hashlib.sha256(wanted.encode()).hexdigest()[:12]
        return self.cache / f"{runtime.name.replace(' ', '-')}-{digest}"

    def installed(self, runtime: RuntimeSpec) -> bool:
        path = self.path(runtime)
        # The second is a link that dangles once the interpreter it was made from is gone.
        return (path / READY).is_file() and (path / "bin" / "python").exists()

    def get(self, runtime: RuntimeSpec) -> Environment:
        """The runtime's environment, made now if it is not there. Raises Unavailable."""
        path = self.path(runtime)
        python = path / "bin" / "python"
        if self.installed(runtime):
            return Environment(python)
        try:
            base = self._pythons.find(runtime.python)
        except NoPython as error:
            raise Unavailable(str(error)) from error
        try:
            with _locked(path):
                if self.installed(runtime):
                    return Environment(python)
                started = time.monotonic()
                _make(path, base, runtime)
                took = time.monotonic() - started
                _finish(path, runtime, took)
                return Environment(python, took)
        except OSError as error:
            raise Unavailable(f"cannot make its environment {path}: {error}") from error


def user_cache() -> Path:
    """Where environments are kept unless told otherwise (XDG Base Directory Specification)."""
    # The specification has relative paths ignored.
    chosen = Path(os.environ.get("XDG_CACHE_HOME") or "")
    base = chosen if chosen.is_absolute() else Path.home() / ".cache"
    return base / "nightshift" / "runtimes"


def isolated() -> dict[str, str]:
    """The process's environment variables without those that lead Python out of its environment."""
    leading = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "PIP_TARGET", "PIP_USER")
    return {name: value for name, value in os.environ.items() if name not in leading}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(path: Path, base: Path, runtime: RuntimeSpec) -> None:
    if path.exists():
        shutil.rmtree(path)
    _run([base, "-m", "venv", path], f"{base} -m venv failed")
    pip: list[str | Path] = [
        path / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
    ]
    pip += ["--disable-pip-version-check", "--only-binary", ":all:"]
    _run([*pip, *runtime.requirements], "pip could not install it")


def _finish(path: Path, runtime: RuntimeSpec, took: float) -> None:
    made = {
        "name": runtime.name,
        "python": runtime.python,
        "requirements": runtime.requirements,
        "install_s": round(took, 1),
    }
    unfinished = path / (READY + ".unfinished")
    unfinished.write_text(json.dumps(made, indent=2) + "\n")
    unfinished.replace(path / READY)


def _run(command: list[str | Path], failure: str) -> None:
    try:
        run = subprocess.run(
            command,
            env=isolated(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{failure}: not done after {INSTALL_TIMEOUT_S} s") from error
    if run.returncode != 0:
        raise Unavailable(f"{failure}: {last_lines(run.stdout) or f'exit code {run.returncode}'}")


def last_lines(text: str) -> str:
    """The end of a program's output, in one line."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in text.splitlines()]
    return " / ".join([line for line in lines if line][-_LAST_LINES:])[-500:]
