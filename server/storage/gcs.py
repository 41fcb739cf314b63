"""Objects in a bucket of Google Cloud Storage.

That an object is written once is for the bucket to say: each upload demands that
there be no live generation of the object (`ifGenerationMatch=0`), which the
service decides atomically. https://cloud.google.com/storage/docs/request-preconditions
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from server.storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable, check_key

#: Seconds to connect, and of silence after which a try is given up.
TRY_TIMEOUT_S = (5.0, 15.0)

#: Seconds after which a call that failed is not tried again.
RETRY_DEADLINE_S = 30.0

#: Bytes of one request of a large upload, which then takes no more memory.
CHUNK_BYTES = 8 << 20

#: The custom metadata that says who wrote an object.
_WRITER = "nightshift-writer"


class GcsBlobs(BlobStore):
    """The objects of a bucket, which must exist; any number of machines may share it.

    Credentials are those that Google's libraries find (a service account of the
    machine, GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`).
    STORAGE_EMULATOR_HOST names another server with the same interface.

    Args:
        bucket: Its name.
        try_timeout_s: Seconds to connect, and of silence.
        retry_deadline_s: Seconds in which a call is tried again. With the last
            try a call to a silent service ends after the sum of all three.

    Raises:
        BlobsUnavailable: there are no credentials.
    """

    def __init__(
        self,
        *,
        bucket: str,
        try_timeout_s: tuple[float, float] = TRY_TIMEOUT_S,
        retry_deadline_s: float = RETRY_DEADLINE_S,
    ) -> None:
        self._name = bucket
        self._timeout = try_timeout_s
        self._retry = DEFAULT_RETRY.with_timeout(retry_deadline_s)
        with self._named_errors("open"):
            self._client = Client()
        self._bucket = self._client.bucket(bucket)

    def get(self, key: str) -> bytes:
        blob = self._blob(key)
        with self._named_errors(key):
            return bytes(blob.download_as_bytes(timeout=self._timeout, retry=self._retry))

    def put_new(self, key: str, data: bytes) -> bool:
        blob = self._blob(key)
        writer = secrets.token_hex(16)
        blob.metadata = {_WRITER: writer}
        if len(data) > CHUNK_BYTES:
            blob.chunk_size = CHUNK_BYTES
        with self._named_errors(key):
            try:
                blob.upload_from_string(
                    data,
                    content_type="application/octet-stream",
                    if_generation_match=0,
                    timeout=self._timeout,
                    retry=self._retry,
                )
            except (PreconditionFailed, InvalidResponse) as error:
                if not _is_precondition(error):
                    raise
                return self._is_by(writer, key)
        return True

    def size(self, key: str) -> int:
        blob = self._blob(key)
        with self._named_errors(key):
            blob.reload(timeout=self._timeout, retry=self._retry)
        return int(blob.size)

    def list(self, prefix: str = "") -> Iterator[str]:
        with self._named_errors(f"{prefix}*"):
            for blob in self._client.list_blobs(
                self._bucket,
                prefix=prefix,
                fields="items(name),nextPageToken",
                timeout=self._timeout,
                retry=self._retry,
            ):
                yield str(blob.name)

    def delete(self, key: str) -> None:
        blob = self._blob(key)
        with self._named_errors(key):
            blob.delete(timeout=self._timeout, retry=self._retry)

    def _is_by(self, writer: str, key: str) -> bool:
        # An upload whose answer was lost is tried again, and then finds its own object.
        blob = self._blob(key)
        try:
            blob.reload(timeout=self._timeout, retry=self._retry)
        except NotFound:
            return False
        return bool((blob.metadata or {}).get(_WRITER) == writer)

    def _blob(self, key: str) -> Blob:
        check_key(key)
        return self._bucket.blob(key)

    @contextmanager
    def _named_errors(self, key: str) -> Iterator[None]:
        place = f"gs://{self._name}/{key}"
        try:
            yield
        except NotFound as error:
            if "bucket" in str(error).lower() and "does not exist" in str(error):
                raise BlobsUnavailable(f"there is no bucket {self._name!r}: {error}") from error
            raise BlobNotFound(f"no object {place}") from error
        except (GoogleAPIError, GoogleAuthError, InvalidResponse) as error:
            raise BlobsUnavailable(f"{place}: {error}") from error
        except (RequestException, DataCorruption, ConnectionError) as error:
            raise BlobsUnavailable(f"{place}: {error}") from error


def _is_precondition(error: PreconditionFailed | InvalidResponse) -> bool:
    if isinstance(error, PreconditionFailed):
        return True
    return bool(error.response.status_code == 412)
