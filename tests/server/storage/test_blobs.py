"""Blobs are written once, atomically, and found again."""

import hashlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.storage.blobs import (
    BlobDamaged,
    BlobNotFound,
    BlobStore,
    LocalBlobs,
    content_key,
    get_content,
    open_blobs,
    prefixed,
    put_content,
)
from tests.server.storage.loopback_gcs import LoopbackGcs
from tests.server.storage.racing import race_processes, race_threads

#: A bucket of Google Cloud Storage, to test with instead of ours alone.
BUCKET = os.environ.get("NIGHTSHIFT_TEST_BUCKET")


@pytest.fixture(params=["directory", "loopback", *(["bucket"] if BUCKET else [])])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Where there are no objects: of each kind of store."""
    if request.param == "directory":
        yield str(tmp_path / "blobs")
    elif request.param == "loopback":
        with LoopbackGcs("test") as gcs:
            # A listing has several pages.
            gcs.page_size = 2
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
            yield "gs://test"
    else:
        url = f"gs://{BUCKET}/nightshift-test/{secrets.token_hex(8)}"
        yield url
        left = open_blobs(url)
        for key in left.list():
            left.delete(key)


@pytest.fixture
def blobs(place: str) -> BlobStore:
    return open_blobs(place)


def test_an_object_is_read_as_it_was_written(blobs: BlobStore) -> None:
    assert blobs.put_new("plans/a.plan", b"\x00bytes")
    assert blobs.get("plans/a.plan") == b"\x00bytes"
    assert blobs.size("plans/a.plan") == 6


def test_an_empty_object_exists(blobs: BlobStore) -> None:
    assert blobs.put_new("empty", b"")
    assert blobs.get("empty") == b""


def test_an_object_is_never_replaced(blobs: BlobStore) -> None:
    blobs.put_new("a", b"first")
    assert not blobs.put_new("a", b"second")
    assert blobs.get("a") == b"first"


def test_another_store_at_the_same_place_sees_the_object(place: str) -> None:
    open_blobs(place).put_new("a/b", b"1")
    assert open_blobs(place).get("a/b") == b"1"


def test_large_objects_are_read_as_they_were_written(blobs: BlobStore) -> None:
    data = random.Random(7).randbytes(20_000_001)
    assert blobs.put_new("large", data)
    assert not blobs.put_new("large", data[1:])
    assert blobs.size("large") == len(data)
    assert blobs.get("large") == data


def test_a_missing_object_is_named_in_the_error(blobs: BlobStore) -> None:
    blobs.put_new("a/b", b"1")
    for key in ("nothing", "a", "a/b/c"):
        for access in (blobs.get, blobs.size, blobs.delete):
            with pytest.raises(BlobNotFound, match=key):
                access(key)


def test_a_deleted_object_can_be_written_again(blobs: BlobStore) -> None:
    blobs.put_new("a", b"1")
    blobs.delete("a")
    assert list(blobs.list()) == []
    assert blobs.put_new("a", b"2")


def test_listing_is_by_prefix_and_sorted(blobs: BlobStore) -> None:
    for key in ("b/2", "a/10", "a/1", "ab"):
        blobs.put_new(key, b"")
    assert list(blobs.list()) == ["a/1", "a/10", "ab", "b/2"]
    assert list(blobs.list("a/1")) == ["a/1", "a/10"]
    assert list(blobs.list("c")) == []


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "..", "a/../b", ".incoming/x", "a b", "a\\b", "a\x00", "ü"]
)
def test_a_key_cannot_leave_the_store(blobs: BlobStore, key: str) -> None:
    for access in (blobs.get, blobs.size, blobs.delete, lambda k: blobs.put_new(k, b"")):
        with pytest.raises(ValueError, match="not an object key"):
            access(key)


def test_of_16_racing_threads_one_wins_and_its_bytes_stay(blobs: BlobStore) -> None:
    won = race_threads(16, lambda i: blobs.put_new("contested", bytes([i]) * 100_000))
    assert sum(won) == 1
    assert blobs.get("contested") == bytes([won.index(True)]) * 100_000


def test_of_8_racing_processes_one_wins(place: str) -> None:
    environment = os.environ.get("STORAGE_EMULATOR_HOST")

    def put(index: int) -> bool:
        if environment:
            os.environ["STORAGE_EMULATOR_HOST"] = environment
        return open_blobs(place).put_new("contested", bytes([index]) * 100_000)

    won = race_processes(8, put)
    assert sum(won) == 1
    assert open_blobs(place).get("contested") == bytes([won.index(True)]) * 100_000


def test_a_part_of_a_store_is_a_store(blobs: BlobStore) -> None:
    ours, theirs = prefixed(blobs, "digits/demo"), prefixed(blobs, "digits/demo2")
    assert ours.put_new("a/b", b"ours")
    assert theirs.put_new("a/b", b"theirs")
    assert list(blobs.list()) == ["digits/demo/a/b", "digits/demo2/a/b"]
    assert list(ours.list()) == ["a/b"]
    assert list(ours.list("a/")) == ["a/b"]
    assert list(ours.list("digits")) == []
    assert (ours.get("a/b"), theirs.size("a/b")) == (b"ours", 6)
    ours.delete("a/b")
    with pytest.raises(BlobNotFound, match="digits/demo/a/b"):
        ours.get("a/b")
    for key in ("../demo2/a/b", "/a/b", ""):
        with pytest.raises(ValueError, match="not an object key"):
            ours.get(key)
    with pytest.raises(ValueError, match="not an object key"):
        prefixed(blobs, "digits/")


@pytest.mark.parametrize("url", ["gs://", "gs:///prefix", "s3://bucket", "gs://bucket/a b"])
def test_what_is_no_place_for_blobs_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"gs://bucket/prefix|object key"):
        open_blobs(url)


def test_a_writer_killed_at_any_moment_leaves_only_whole_objects(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from server.storage.blobs import LocalBlobs, put_content\n"
        "store = LocalBlobs(root=pathlib.Path(sys.argv[1]))\n"
        "while True: put_content(store, os.urandom(2_000_000)); print(flush=True)"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    with writer.stdout as written:
        written.readline()
        time.sleep(0.1)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    blobs = LocalBlobs(root=tmp_path)
    keys = list(blobs.list())
    assert keys
    for key in keys:
        assert content_key(hashlib.sha256(blobs.get(key)).hexdigest()) == key


def test_what_a_dead_writer_left_is_removed_a_day_later(tmp_path: Path) -> None:
    LocalBlobs(root=tmp_path)
    old, new = tmp_path / ".incoming" / "old", tmp_path / ".incoming" / "new"
    for path in (old, new):
        path.write_bytes(b"part of an obj")
    os.utime(old, (0, 0))
    LocalBlobs(root=tmp_path)
    assert [old.exists(), new.exists()] == [False, True]


def test_what_a_dead_writer_left_is_removed_at_once_by_the_only_user(tmp_path: Path) -> None:
    LocalBlobs(root=tmp_path).put_new("whole", b"an object")
    (tmp_path / ".incoming" / "part").write_bytes(b"part of an obj")
    blobs = LocalBlobs(root=tmp_path, sole=True)
    assert list((tmp_path / ".incoming").iterdir()) == []
    assert blobs.get("whole") == b"an object"


@given(data=st.binary(max_size=1000))
def test_content_is_found_by_its_digest(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    blobs = LocalBlobs(root=tmp_path_factory.getbasetemp() / "content")
    digest = put_content(blobs, data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert put_content(blobs, data) == digest
    assert get_content(blobs, digest) == data


def test_damaged_content_is_noticed(blobs: BlobStore) -> None:
    digest = hashlib.sha256(b"what it should be").hexdigest()
    blobs.put_new(content_key(digest), b"what it is")
    with pytest.raises(BlobDamaged, match=digest):
        get_content(blobs, digest)


def test_content_keys_are_of_lower_case_hex_digests_only() -> None:
    assert content_key("ab" * 32) == "sha256/ab/" + "ab" * 32
    for digest in ("AB" * 32, "ab", "../" + "ab" * 32, "ab" * 32 + "\n"):
        with pytest.raises(ValueError, match="SHA-256"):
            content_key(digest)
