"""How the C library gives out large blocks of memory, where a process must stay small."""

import contextlib
import ctypes
from collections.abc import Iterator

#: malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: Blocks above this many bytes are apart; glibc's own first choice, and its largest.
_APART, _TOGETHER = 1 << 17, 1 << 25


@contextlib.contextmanager
def mapped_apart() -> Iterator[None]:
    """Within it, large blocks are mapped one by one, so that each is given back when freed.

    glibc would put them into its heap once one of them has been freed, and keep the holes
    that they leave there. Android's allocator does not; on it, and where the C library
    has no such setting, nothing happens. (mallopt(3), malloc_trim(3).)
    """
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    library.malloc_trim(0)
    _set(library, _APART)
    try:
        yield
    finally:
        # What each step takes and frees again should not be mapped anew each time.
        _set(library, _TOGETHER)


def _set(library: ctypes.CDLL, threshold: int) -> None:
    library.mallopt(_M_MMAP_THRESHOLD, threshold)
    library.mallopt(_M_TRIM_THRESHOLD, threshold)
