"""Finds the Python interpreters that runtimes need."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

#: Directories with interpreters, separated as in PATH; looked at first.
VARIABLE = "NIGHTSHIFT_PYTHONS"


class NoPython(Exception):
    """No interpreter of the version was found; the message says where it was sought."""


class Pythons:
    """The interpreters of this machine.

    Args:
        directories: Looked at before all other places, and an interpreter
            found in one of them before all others.
    """

    def __init__(self, directories: Sequence[Path] = ()) -> None:
        self._directories = tuple(directories)
        self._found: dict[str, Path] = {}

    def find(self, version: str) -> Path:
        """An interpreter of a version such as "3.9". Raises NoPython."""
        if version not in self._found:
            for candidate in self._candidates(version):
                # Programs such as pyenv's put a python3.9 on PATH that only tells to install it.
                if candidate.exists() and _version(candidate) == version:
                    self._found[version] = candidate
                    break
            else:
                raise NoPython(
                    f"needs Python {version}, and none was found on PATH, below "
                    f"{_pyenv() / 'versions'}, in --python or ${VARIABLE}: install it, "
                    "or leave the runtime out with --runtimes"
                )
        return self._found[version]

    def _candidates(self, version: str) -> Iterator[Path]:
        name = f"python{version}"
        named = [Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
        for directory in (*self._directories, *named):
            for place in (directory, directory / "bin"):
                yield place / name
                yield place / "python3"
        yield Path(sys.executable)
        on_path = shutil.which(name)
        if on_path:
            yield Path(on_path)
        yield from sorted(_pyenv().glob(f"versions/{version}*/bin/{name}"))


def _pyenv() -> Path:
    return Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")


def _version(python: Path) -> str:
    """The interpreter's major and minor version; "" if it does not run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        run = subprocess.run(
            [python, "-I", "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
