"""Where a cluster under test keeps its blobs: a server of ours, or a real bucket."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from server.storage.blobs import BlobStore, open_blobs
from tests.server.storage.loopback_gcs import LoopbackGcs

#: Names a real bucket, for which there must be credentials.
REAL = "NIGHTSHIFT_TEST_BUCKET"


@dataclass(frozen=True)
class Bucket:
    """Objects below a URL.

    Attributes:
        url: As `--blobs` takes it.
        environment: With which processes reach it.
    """

    url: str
    environment: dict[str, str] = field(default_factory=dict)

    def blobs(self) -> BlobStore:
        with patch.dict(os.environ, self.environment):
            return open_blobs(self.url)


@contextmanager
def bucket() -> Iterator[Bucket]:
    """A real bucket if the environment names one, and empty below its URL; else one of ours."""
    if REAL not in os.environ:
        with LoopbackGcs("nightshift-contract") as loopback:
            yield Bucket("gs://nightshift-contract/prefix", {"STORAGE_EMULATOR_HOST": loopback.url})
        return
    real = Bucket(f"gs://{os.environ[REAL]}/nightshift-test/{secrets.token_hex(8)}")
    try:
        yield real
    finally:
        blobs = real.blobs()
        for key in blobs.list():
            blobs.delete(key)
