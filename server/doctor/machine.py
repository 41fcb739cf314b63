"""The machine: Python, packages, limits, disk."""

import os
import re
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from server.doctor.finding import Finding, fine, skipped, warning, wrong

#: In a checkout, the lock file is beside the packages.
LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"

#: File descriptors: below the first a server is useless, below the second it holds
#: fewer idle phones than it could (`server.http.serving.MAX_CONNECTIONS`).
FEW_DESCRIPTORS = 1024
MANY_DESCRIPTORS = 65_536

#: Bytes free on the disk of the data directory.
LITTLE_SPACE = 1 << 30

#: Seconds of one fsync: a commit needs a few, and a device waits for none of them,
#: but a round's end does.
SLOW_FSYNC_S = 0.05

_FSYNCS = 15


def python() -> Iterator[Finding]:
    """Whether this is the Python that everything is locked for."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        yield fine("Python", version)
    else:
        yield wrong("Python", version, "install Python 3.11 and build the environment anew")


def dependencies(lock: Path = LOCK) -> Iterator[Finding]:
    """Whether the installed packages are those of the lock file."""
    check = "dependencies"
    if not lock.exists():
        yield skipped(check, "no requirements.lock beside the packages to compare with")
        return
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))
    installed = {
        re.sub(r"[-_.]+", "-", found.name).lower(): found.version
        for found in metadata.distributions()
    }
    missing = sorted(_required() - installed.keys())
    differing = sorted(
        f"{name} {installed[name]} (locked: {version})"
        for name, version in locked.items()
        if name in installed and installed[name] != version
    )
    remedy = f"pip install --no-deps --require-hashes -r {lock}"
    if missing:
        yield wrong(check, f"not installed: {', '.join(missing)}", remedy)
    if differing:
        yield warning(check, _few(differing), remedy)
    if not missing and not differing:
        yield fine(check, f"{len(locked)} packages are as locked")


def descriptors() -> Iterator[Finding]:
    """How many connections and files a server may have open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    check, detail = "file descriptors", f"at most {hard}"
    remedy = f"set LimitNOFILE={MANY_DESCRIPTORS * 2} in the unit, or `ulimit -Hn` before the start"
    if hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS:
        yield wrong(check, detail, remedy)
    elif hard != resource.RLIM_INFINITY and hard < MANY_DESCRIPTORS:
        yield warning(check, f"{detail}: that many idle phones at once", remedy)
    else:
        yield fine(check, detail)


def data_directory(directory: Path) -> Iterator[Finding]:
    """Whether a server could write there, how much, and how fast it is durable."""
    check = "data directory"
    if not directory.exists():
        parent = next(path for path in directory.absolute().parents if path.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield skipped(check, f"{directory} does not exist: the first start makes it")
        else:
            yield wrong(
                check,
                f"{directory} does not exist, and {parent} is not writable",
                "make it, owned by the server's user, or name another by --data-dir",
            )
        return
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        yield wrong(
            check,
            f"{directory} cannot be written: {error.strerror}",
            f"chown it to the server's user ({_user()}), or mount it writable",
        )
        return
    if directory.stat().st_mode & 0o077:
        yield warning(
            check, f"others may look into {directory}, which has secrets", f"chmod 700 {directory}"
        )
    else:
        yield fine(check, f"{directory} is writable, and only by its owner")
    yield from _disk(directory)


def _disk(directory: Path) -> Iterator[Finding]:
    usage = shutil.disk_usage(directory)
    detail = f"{usage.free / (1 << 30):.1f} GiB free, {usage.free / usage.total:.0%}"
    remedy = "make room, or move the data directory: models of each round stay until deleted"
    if usage.free < LITTLE_SPACE:
        yield wrong("disk space", detail, remedy)
    elif usage.free < usage.total / 20:
        yield warning("disk space", detail, remedy)
    else:
        yield fine("disk space", detail)
    seconds = statistics.median(_fsync_seconds(directory))
    detail = f"{seconds * 1000:.2f} ms in the median of {_FSYNCS}"
    if seconds > SLOW_FSYNC_S:
        yield warning(
            "fsync", detail, "put the data directory on a local SSD, not on a network file system"
        )
    else:
        yield fine("fsync", detail)


def _fsync_seconds(directory: Path) -> list[float]:
    found = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(_FSYNCS):
            file.write(os.urandom(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            found.append(time.perf_counter() - began)
    return found


def _required() -> set[str]:
    """The distributions that Nightshift cannot do without."""
    try:
        requirements = metadata.requires("nightshift") or []
    except metadata.PackageNotFoundError:
        return set()
    names = [re.match(r"[A-Za-z0-9._-]+", line) for line in requirements if "extra ==" not in line]
    return {re.sub(r"[-_.]+", "-", name[0]).lower() for name in names if name}


def _few(names: list[str], most: int = 5) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _user() -> str:
    return os.environ.get("USER") or str(os.getuid())
