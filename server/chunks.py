"""Which chunk of an update may come next, and where it goes."""

from dataclasses import dataclass

from device_plan.wire_pb2 import BUSY, CHUNK_OUT_OF_ORDER, INVALID_FIELD, TOO_LARGE
from server.refusal import Refusal
from server.session import Session
from server.upload import Upload, UploadMemory


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What a chunk says of itself, in bytes."""

    offset: int
    length: int
    total: int


def begin_chunk(
    session: Session, chunk: Chunk, *, limit: int, memory: UploadMemory
) -> tuple[int, memoryview] | None:
    """A number for `end_chunk` and where to receive the chunk; None if it is here already.

    Args:
        session: Live, and allowed to upload.
        chunk: Its header.
        limit: Bytes that an update of this plan may have.
        memory: For the buffer of a first chunk.

    Raises:
        Refusal: TOO_LARGE, INVALID_FIELD, CHUNK_OUT_OF_ORDER, BUSY.
    """
    if chunk.total > limit:
        raise Refusal(TOO_LARGE, f"an update of this plan has at most {limit} bytes")
    if chunk.length < 1 or chunk.offset + chunk.length > chunk.total:
        raise Refusal(
            INVALID_FIELD,
            f"a chunk of {chunk.length} bytes at {chunk.offset} does not lie in an update of "
            f"{chunk.total}",
        )
    upload = session.upload
    if upload is not None and upload.total != chunk.total:
        raise Refusal(
            INVALID_FIELD, f"Upload-Length is {chunk.total}; the first chunk said {upload.total}"
        )
    received = upload.received if upload is not None else 0
    if chunk.offset + chunk.length <= received:
        return None
    if chunk.offset != received:
        raise Refusal(
            CHUNK_OUT_OF_ORDER,
            f"the next chunk begins at {received}, not at {chunk.offset}",
            upload_offset=received,
        )
    if upload is None:
        buffer = memory.take(chunk.total)
        if buffer is None:
            raise Refusal(BUSY, "too many uploads are under way: try again in a moment")
        upload = session.upload = Upload(buffer=buffer, memory=memory)
    elif upload.receiving:
        upload.fork()
    upload.receiving = True
    session.chunks_begun += 1
    return session.chunks_begun, upload.region(chunk.length)


def end_chunk(session: Session, number: int, length: int) -> int:
    """The bytes received so far, with this chunk's `length` (0 if it did not arrive well).

    Raises:
        Refusal: BUSY if a later request took over.
    """
    upload = session.upload
    if number != session.chunks_begun or upload is None or not upload.receiving:
        raise Refusal(BUSY, "another request of this session sends the same chunk")
    upload.receiving = False
    upload.received += length
    return upload.received
