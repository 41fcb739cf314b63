"""A request that is refused: what the device did wrong and what it should do."""

from device_plan.wire_pb2 import Reason


class Refusal(Exception):
    """Answered with a 4xx and this reason; nothing has changed.

    Args:
        reason: The code for the device's program.
        message: A sentence for its developer: what was wrong, where, what to do.
        upload_offset: With CHUNK_OUT_OF_ORDER, where to resume.
    """

    def __init__(self, reason: Reason, message: str, *, upload_offset: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.upload_offset = upload_offset
