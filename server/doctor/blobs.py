"""The blob store: what is put there is there, and the first of two writers wins."""

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server.doctor.finding import Finding, fine, skipped, wrong
from server.storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable, open_blobs

#: Writers that race for one key.
_RACERS = 4


def configured_blobs(url: str) -> Iterator[Finding]:
    """The findings on a directory or bucket, as the configuration names it."""
    if "://" not in url and not Path(url).exists():
        yield skipped("blob store", f"{url} does not exist: the first start makes it")
        return
    try:
        store = open_blobs(url)
    except (BlobsUnavailable, ValueError, OSError) as error:
        yield wrong(
            "blob store",
            f"{url}: {error}",
            "correct --blobs; for a bucket give this machine a service account, or set "
            "GOOGLE_APPLICATION_CREDENTIALS",
        )
        return
    yield from blob_findings(store, url)


def blob_findings(store: BlobStore, name: str) -> Iterator[Finding]:
    """Puts, reads, races and deletes objects below `doctor/`.

    Args:
        store: The store.
        name: What it is called.
    """
    check = "blob store"
    key, data = f"doctor/{secrets.token_hex(8)}", secrets.token_bytes(1024)
    remedy = f"let the server's user (or service account) create, read and delete in {name}"
    began = time.perf_counter()
    try:
        won = store.put_new(key, data)
        back = store.get(key)
    except Exception as error:
        yield wrong(check, f"{name}: {type(error).__name__}: {error}", remedy)
        return
    took_s = time.perf_counter() - began
    try:
        if not won or back != data:
            yield wrong(check, f"{name} did not give back what was put there", remedy)
            return
        yield fine(check, f"{name}: put and got 1 KiB in {took_s * 1000:.1f} ms")
        yield _preconditions(store, key)
    finally:
        store.delete(key)
    try:
        store.get(key)
    except BlobNotFound:
        return
    yield wrong(
        check, f"{name}: a deleted object is still there", "is this a cache? name the origin"
    )


def _preconditions(store: BlobStore, key: str) -> Finding:
    raced = f"{key}-raced"
    contents = [bytes([number]) * 64 for number in range(_RACERS)]
    with ThreadPoolExecutor(_RACERS) as racers:
        won = list(racers.map(lambda data: store.put_new(raced, data), contents))
    try:
        late = store.put_new(raced, b"late")
        kept = store.get(raced)
    finally:
        store.delete(raced)
    if sum(won) == 1 and not late and kept == contents[won.index(True)]:
        return fine("blob preconditions", f"one of {_RACERS} racing writers won, and stayed")
    return wrong(
        "blob preconditions",
        f"{sum(won)} of {_RACERS} racing writers were told they won, a later one: {late}",
        "models may be overwritten: use a file system with hard links, or a store that honours "
        "ifGenerationMatch",
    )
