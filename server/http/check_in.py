"""Reading a check-in: what a device may say of itself, and within which bounds."""

import re

from device_plan import wire_pb2 as wire
from server.http.messages import Environ, read_message
from server.refusal import Refusal

#: The current version of the protocol; every answer says it.
PROTOCOL_VERSION = 1

#: Protocol versions served here.
PROTOCOL_VERSIONS = (PROTOCOL_VERSION,)

#: Attributes of a device, and characters of each name and value.
MAX_ATTRIBUTES = 8
MAX_ATTRIBUTE = 64

_CHECK_IN_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")


def read_check_in(environ: Environ) -> wire.CheckInRequest:
    """The check-in in a request's body.

    Raises:
        Refusal: UNSUPPORTED_PROTOCOL, INVALID_FIELD, or as `read_message`.
    """
    message = read_message(environ, wire.CheckInRequest)
    if message.protocol_version not in PROTOCOL_VERSIONS:
        raise Refusal(
            wire.UNSUPPORTED_PROTOCOL,
            f"protocol_version {message.protocol_version} is not served; "
            f"served: {', '.join(map(str, PROTOCOL_VERSIONS))}",
        )
    if not _CHECK_IN_ID.fullmatch(message.check_in_id):
        raise Refusal(
            wire.INVALID_FIELD, "check_in_id must be 16 to 64 letters, digits, '-' or '_'"
        )
    if len(message.runtime) > 64 or len(message.client_version) > 64:
        raise Refusal(wire.INVALID_FIELD, "runtime and client_version have at most 64 characters")
    return message


def attributes_of(message: wire.CheckInRequest) -> dict[str, str]:
    """What the device says of itself.

    Raises:
        Refusal: INVALID_FIELD.
    """
    attributes = message.attributes
    if not attributes:
        return {}
    if len(attributes) > MAX_ATTRIBUTES or not all(
        0 < len(text) <= MAX_ATTRIBUTE for pair in attributes.items() for text in pair
    ):
        raise Refusal(
            wire.INVALID_FIELD,
            f"attributes are at most {MAX_ATTRIBUTES}; names and values have 1 to "
            f"{MAX_ATTRIBUTE} characters",
        )
    return dict(attributes)
