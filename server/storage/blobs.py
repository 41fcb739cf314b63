"""Immutable objects under text keys: plans, server states, checkpoints.

An object is written once and never changed, so that its readers need no lock
and a cache may keep it for ever. What is current is a row in the database.
"""

import hashlib
import os
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: A key is one or more of these, joined by "/".
_SEGMENT = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*")

_SHA256 = re.compile(r"[0-9a-f]{64}")

#: Where unfinished objects lie. A key cannot begin with a dot, so none can name one.
_INCOMING = ".incoming"

#: Seconds after which an unfinished object belongs to a writer that died.
_ABANDONED_AFTER_S = 24 * 3600.0


class BlobNotFound(LookupError):
    """The store has no object under that key."""


class BlobDamaged(ValueError):
    """The bytes of a content-addressed object do not have the digest in its key."""


class BlobsUnavailable(RuntimeError):
    """The store did not answer in its time, or refused; what was asked may have been done."""


class BlobStore(ABC):
    """Whole objects, visible at once or not at all.

    Every method raises ValueError for a key that is not a relative path of
    letters, digits, ".", "_", "=" and "-" whose segments begin without a dot, and
    BlobsUnavailable if the store cannot be reached; what was to be put may then be
    there, and can be put again.
    """

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The object's bytes. Raises BlobNotFound."""

    @abstractmethod
    def put_new(self, key: str, data: bytes) -> bool:
        """Store an object unless there is one: of any number of racers exactly one gets True.

        When this returns, the object (the caller's or the winner's) is durable.
        """

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes of the object. Raises BlobNotFound."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with `prefix`, in lexical order."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object. Raises BlobNotFound."""


class LocalBlobs(BlobStore):
    """Objects as files below a directory of one POSIX file system with hard links.

    Any number of threads and processes may share the directory.

    Args:
        root: The directory; it is made if it does not exist.
        sole: Nobody else uses the directory now: whatever is unfinished in it
            belongs to a writer that died, and is removed at once.
    """

    def __init__(self, *, root: Path, sole: bool = False) -> None:
        self._root = root
        self._incoming = root / _INCOMING
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._sweep(0.0 if sole else _ABANDONED_AFTER_S)

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise BlobNotFound(f"no object {key!r} in {self._root}") from None

    def put_new(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        if target.exists():
            return False
        unfinished = self._incoming / secrets.token_hex(16)
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._make_directory(target.parent)
            try:
                # Unlike a rename, a link never replaces what is there.
                os.link(unfinished, target)
            except FileExistsError:
                return False
            finally:
                _sync_directory(target.parent)
            return True
        finally:
            unfinished.unlink(missing_ok=True)

    def size(self, key: str) -> int:
        path = self._path(key)
        if not path.is_file():
            raise BlobNotFound(f"no object {key!r} in {self._root}")
        return path.stat().st_size

    def list(self, prefix: str = "") -> Iterator[str]:
        found = (
            str(Path(directory, name).relative_to(self._root))
            for directory, _, names in os.walk(self._root)
            if Path(directory) != self._incoming
            for name in names
        )
        yield from sorted(key for key in found if key.startswith(prefix))

    def delete(self, key: str) -> None:
        path = self._path(key)
        if not path.is_file():
            raise BlobNotFound(f"no object {key!r} in {self._root}")
        path.unlink(missing_ok=True)
        _sync_directory(path.parent)

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root.joinpath(*key.split("/"))

    def _make_directory(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        _sync_directory(directory.parent)

    def _sweep(self, older_than_s: float) -> None:
        for unfinished in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - unfinished.stat().st_mtime >= older_than_s:
                    unfinished.unlink()


class _PrefixedBlobs(BlobStore):
    def __init__(self, store: BlobStore, prefix: str) -> None:
        self._store = store
        self._prefix = f"{prefix}/"

    def get(self, key: str) -> bytes:
        return self._store.get(self._key(key))

    def put_new(self, key: str, data: bytes) -> bool:
        return self._store.put_new(self._key(key), data)

    def size(self, key: str) -> int:
        return self._store.size(self._key(key))

    def list(self, prefix: str = "") -> Iterator[str]:
        for key in self._store.list(self._prefix + prefix):
            yield key.removeprefix(self._prefix)

    def delete(self, key: str) -> None:
        self._store.delete(self._key(key))

    def _key(self, key: str) -> str:
        check_key(key)
        return self._prefix + key


def prefixed(store: BlobStore, prefix: str) -> BlobStore:
    """The part of a store whose keys begin with `prefix` and "/", as a store of its own.

    Raises:
        ValueError: the prefix could not be a key.
    """
    check_key(prefix)
    return _PrefixedBlobs(store, prefix)


def open_blobs(url: str, *, sole: bool = False) -> BlobStore:
    """The store at a place.

    Args:
        url: `gs://bucket` or `gs://bucket/prefix` for Google Cloud Storage, with
            the credentials that Google's libraries find; else a directory.
        sole: Nobody else uses the directory now (see `LocalBlobs`).

    Raises:
        ValueError: the URL has no bucket, or its prefix could not be a key.
        BlobsUnavailable: there are no credentials.
        OSError: the directory cannot be made.
    """
    if not url.startswith("gs://"):
        if "://" in url:
            raise ValueError(
                f"{url!r} is no place for blobs: use gs://bucket/prefix or a directory"
            )
        return LocalBlobs(root=Path(url), sole=sole)
    # Here, because it takes a second that a server with a directory need not wait.
    from server.storage.gcs import GcsBlobs

    bucket, _, prefix = url.removeprefix("gs://").rstrip("/").partition("/")
    if not bucket:
        raise ValueError(f"{url!r} names no bucket: use gs://bucket/prefix")
    store = GcsBlobs(bucket=bucket)
    return prefixed(store, prefix) if prefix else store


def check_key(key: str) -> None:
    """Raises ValueError for what cannot be the key of an object."""
    if not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise ValueError(f"{key!r} is not an object key: use letters, digits and ._=- only")


def content_key(sha256: str) -> str:
    """The key of an object that is named by its own digest (64 lower-case hex digits)."""
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is not a SHA-256 in lower-case hex")
    return f"sha256/{sha256[:2]}/{sha256}"


def put_content(store: BlobStore, data: bytes) -> str:
    """Store an object under its digest, if it is not there yet, and return the digest."""
    digest = hashlib.sha256(data).hexdigest()
    store.put_new(content_key(digest), data)
    return digest


def get_content(store: BlobStore, sha256: str) -> bytes:
    """The object with that digest, verified. Raises BlobNotFound or BlobDamaged."""
    data = store.get(content_key(sha256))
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BlobDamaged(f"the object {content_key(sha256)!r} does not have the digest it should")
    return data


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
