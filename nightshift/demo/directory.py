"""The demo's directory: it empties only one that it made itself, and that no other demo uses."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

#: Marks a directory that the demo made and may empty; locked while a demo runs.
MARKER = "made-by-nightshift-demo"


class NotOurs(ValueError):
    """The directory may not be emptied; the message says why."""


@contextlib.contextmanager
def demo_directory(path: Path) -> Iterator[None]:
    """An empty directory at `path`, this demo's alone meanwhile.

    Raises:
        NotOurs: it holds something and the demo did not make it, or another
            demo is running there.
        OSError: it cannot be made or emptied.
    """
    marker = path / MARKER
    if path.exists() and not marker.exists() and any(path.iterdir()):
        raise NotOurs(
            f"the demo would empty {path}, which it did not make: give another --data-dir"
        )
    path.mkdir(parents=True, exist_ok=True)
    with marker.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotOurs(f"another demo is running in {path}: give another --data-dir") from None
        # The marker stays: after an interruption here the directory is still the demo's.
        for entry in path.iterdir():
            if entry == marker:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        yield
