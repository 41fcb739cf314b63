"""A bucket that fails, or is slow, or says nothing, leaves whole objects and clear errors."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from server.storage.blobs import BlobNotFound, BlobsUnavailable
from server.storage.gcs import GcsBlobs
from tests.server.storage.loopback_gcs import (
    LoopbackGcs,
    cut,
    cut_afterwards,
    cut_within,
    silent_for,
    unavailable,
    unavailable_afterwards,
)

#: More than one request of a resumable upload.
LARGE = bytes(range(256)) * 70_000


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackGcs]:
    with LoopbackGcs("test") as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield gcs


@pytest.fixture
def blobs(gcs: LoopbackGcs) -> GcsBlobs:
    del gcs
    return GcsBlobs(bucket="test")


def test_the_bucket_is_asked_not_to_replace_an_object(gcs: LoopbackGcs, blobs: GcsBlobs) -> None:
    assert blobs.put_new("a", b"first")
    first = gcs.buckets["test"]["a"].generation
    assert not blobs.put_new("a", b"second")
    assert gcs.buckets["test"]["a"].generation == first


@pytest.mark.parametrize("fault", [unavailable, unavailable_afterwards, cut, cut_afterwards])
@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
def test_an_upload_whose_answer_is_lost_is_still_the_callers(
    gcs: LoopbackGcs, blobs: GcsBlobs, fault: object, data: bytes
) -> None:
    gcs.fail_next(fault)
    assert blobs.put_new("a", data)
    assert blobs.get("a") == data
    assert not blobs.put_new("a", b"other")
    assert blobs.get("a") == data


@pytest.mark.parametrize("fault", [unavailable, cut, cut_within])
def test_reading_survives_a_fault(gcs: LoopbackGcs, blobs: GcsBlobs, fault: object) -> None:
    blobs.put_new("a", LARGE)
    gcs.fail_next(fault)
    assert blobs.get("a") == LARGE
    gcs.fail_next(fault)
    assert blobs.size("a") == len(LARGE)
    gcs.fail_next(fault)
    assert list(blobs.list()) == ["a"]


def test_a_large_upload_goes_on_where_it_was_cut(gcs: LoopbackGcs, blobs: GcsBlobs) -> None:
    gcs.fail_next(lambda work: work(), lambda work: work(), cut)
    assert blobs.put_new("a", LARGE)
    assert gcs.buckets["test"]["a"].data == LARGE


def test_a_bucket_that_stays_away_is_said_to(gcs: LoopbackGcs) -> None:
    blobs = GcsBlobs(bucket="test", retry_deadline_s=0.5)
    for call in (
        lambda: blobs.get("a"),
        lambda: blobs.put_new("a", b""),
        lambda: blobs.size("a"),
        lambda: list(blobs.list()),
        lambda: blobs.delete("a"),
    ):
        gcs.fail_next(*[unavailable] * 20)
        with pytest.raises(BlobsUnavailable, match=r"gs://test/"):
            call()
        gcs.forget_faults()


def test_a_silent_bucket_is_given_up(gcs: LoopbackGcs) -> None:
    blobs = GcsBlobs(bucket="test", try_timeout_s=(0.5, 0.2), retry_deadline_s=0.5)
    gcs.fail_next(*[silent_for(3)] * 20)
    with pytest.raises(BlobsUnavailable):
        blobs.get("a")


def test_a_slow_bucket_is_waited_for(gcs: LoopbackGcs, blobs: GcsBlobs) -> None:
    gcs.fail_next(silent_for(1))
    assert blobs.put_new("a", b"data")


def test_a_missing_bucket_is_not_a_missing_object(gcs: LoopbackGcs) -> None:
    del gcs
    blobs = GcsBlobs(bucket="elsewhere")
    for call in (lambda: blobs.get("a"), lambda: blobs.put_new("a", b""), lambda: blobs.size("a")):
        with pytest.raises(BlobsUnavailable, match="there is no bucket 'elsewhere'"):
            call()


def test_a_server_that_does_not_exist_is_an_error_with_the_objects_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    blobs = GcsBlobs(bucket="test", retry_deadline_s=0.2)
    with pytest.raises(BlobsUnavailable, match="gs://test/a"):
        blobs.get("a")


def test_damage_on_the_way_is_noticed(gcs: LoopbackGcs, blobs: GcsBlobs) -> None:
    blobs.put_new("a", b"what it should be")
    gcs.damage("test", "a", b"what it has become")
    with pytest.raises(BlobsUnavailable, match="gs://test/a"):
        blobs.get("a")


def test_an_object_that_was_deleted_is_not_found(gcs: LoopbackGcs, blobs: GcsBlobs) -> None:
    blobs.put_new("a", b"")
    blobs.delete("a")
    assert gcs.buckets["test"] == {}
    with pytest.raises(BlobNotFound, match="gs://test/a"):
        blobs.delete("a")


def test_memory_is_bounded_by_a_few_copies_of_the_object(gcs: LoopbackGcs) -> None:
    del gcs
    program = (
        "import resource\n"
        "from server.storage.gcs import GcsBlobs\n"
        "blobs = GcsBlobs(bucket='test')\n"
        "blobs.put_new('warm', bytes(9 << 20)); blobs.get('warm')\n"
        "data = bytes(64 << 20)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "blobs.put_new('a', data)\n"
        "put = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert blobs.get('a') == data\n"
        "got = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print((put - before) / 1024, (got - before) / 1024)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    put_mib, get_mib = map(float, run.stdout.split())
    # 64 MiB of an object: an upload takes pieces of it, a download builds it.
    assert put_mib < 64
    assert get_mib < 3 * 64
