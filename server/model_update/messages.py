"""Messages between the server and its model-update process, over a stream socket.

A message is four bytes of header length (little-endian), a JSON header
`{"kind": …, "fields": {…}, "sizes": […]}`, and then, for each size, that many
bytes. Tensors travel in those as safetensors files.
"""

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Bytes of a header; it holds names, metrics and error texts only.
MAX_HEADER_BYTES = 1 << 20

#: Bytes of all of a message's attachments.
MAX_ATTACHED_BYTES = 2 << 30

_LENGTH = struct.Struct("<I")


class BrokenStream(ConnectionError):
    """The stream ended within a message, or what arrived is not a message."""


class MessageTooLarge(ValueError):
    """A message over the bounds; nothing of it was sent."""


@dataclass(frozen=True)
class Message:
    """One request or answer.

    Attributes:
        kind: What it asks or says.
        fields: JSON values.
        attachments: Bytes.
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    attachments: tuple[bytes, ...] = ()


def send(stream: socket.socket, message: Message) -> None:
    """Send a whole message.

    Raises:
        MessageTooLarge: before anything is sent.
        OSError: the other side is gone, or the socket's timeout has passed.
    """
    sizes = [len(attachment) for attachment in message.attachments]
    header = json.dumps(
        {"kind": message.kind, "fields": dict(message.fields), "sizes": sizes}, allow_nan=False
    ).encode()
    if len(header) > MAX_HEADER_BYTES or sum(sizes) > MAX_ATTACHED_BYTES:
        raise MessageTooLarge(
            f"a message of {len(header)} + {sum(sizes)} bytes is over the bounds of "
            f"{MAX_HEADER_BYTES} + {MAX_ATTACHED_BYTES}"
        )
    stream.sendall(_LENGTH.pack(len(header)) + header)
    for attachment in message.attachments:
        stream.sendall(attachment)


def receive(stream: socket.socket) -> Message | None:
    """The next message, or None if the other side has closed the stream.

    Raises:
        BrokenStream: the stream ended within a message, or is not one of messages.
        OSError: e.g. the socket's timeout has passed.
    """
    first = stream.recv(1)
    if not first:
        return None
    (length,) = _LENGTH.unpack(first + _exactly(stream, _LENGTH.size - 1))
    if length > MAX_HEADER_BYTES:
        raise BrokenStream(f"a header of {length} bytes is announced")
    try:
        header = json.loads(_exactly(stream, length))
        kind, fields, sizes = header["kind"], header["fields"], header["sizes"]
        well_formed = (
            isinstance(kind, str)
            and isinstance(fields, dict)
            and isinstance(sizes, list)
            and all(type(size) is int and size >= 0 for size in sizes)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenStream(f"the header is not a message's: {error}") from error
    if not well_formed or sum(sizes) > MAX_ATTACHED_BYTES:
        raise BrokenStream("the header is not a message's")
    return Message(kind, fields, tuple(_exactly(stream, size) for size in sizes))


def _exactly(stream: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        received = stream.recv_into(view)
        if not received:
            raise BrokenStream(f"the stream ended {len(view)} bytes too early")
        view = view[received:]
    return bytes(buffer)
