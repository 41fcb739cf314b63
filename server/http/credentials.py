"""Who is asking: device keys, session tokens, the operator's token.

A device's identity is a key of 32 random bytes that it makes at installation.
The server knows the device by a hash of population and key, so that a log or a
database never holds what would let anybody speak for the device, and one
device in two populations cannot be linked.
"""

import binascii
import hashlib
import hmac

from device_plan.wire_pb2 import MISSING_CREDENTIAL
from server.http.messages import Environ
from server.refusal import Refusal

#: Bytes of a device key.
DEVICE_KEY_BYTES = 32


def bearer(environ: Environ) -> str:
    """The token of `Authorization: Bearer …`, or Refusal: MISSING_CREDENTIAL."""
    header: str = environ.get("HTTP_AUTHORIZATION", "")
    if not header.startswith("Bearer ") or len(header) > 256:
        raise Refusal(MISSING_CREDENTIAL, "send the header 'Authorization: Bearer …'")
    return header[7:]


def device_id(environ: Environ, population: str) -> bytes:
    """16 bytes that identify the asking device within the population.

    Raises:
        Refusal: MISSING_CREDENTIAL.
    """
    text = bearer(environ)
    try:
        # What base64.b64decode does with altchars, at half its cost.
        base64 = text.replace("-", "+").replace("_", "/")
        key = binascii.a2b_base64(base64 + "=", strict_mode=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != DEVICE_KEY_BYTES:
        raise Refusal(
            MISSING_CREDENTIAL,
            "the bearer must be the device key: 32 bytes as 43 base64url characters",
        )
    return hashlib.sha256(b"nightshift device\0%b\0%b" % (population.encode(), key)).digest()[:16]


class SessionTokens:
    """Tokens that prove that a session is the bearer's own.

    Args:
        key: The server's secret; tokens outlive a restart with it.
    """

    def __init__(self, *, key: bytes) -> None:
        self._key = key

    def issue(self, session_id: str) -> str:
        return hmac.digest(self._key, session_id.encode(), "sha256")[:16].hex()

    def proves(self, token: str, session_id: str) -> bool:
        return hmac.compare_digest(token.encode(), self.issue(session_id).encode())
