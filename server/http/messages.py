"""Protobuf or JSON, in and out, by content negotiation, on plain WSGI environments."""

from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from device_plan.wire_pb2 import (
    LENGTH_REQUIRED,
    MALFORMED_MESSAGE,
    TOO_LARGE,
    TRUNCATED,
    UNSUPPORTED_MEDIA_TYPE,
)
from server.refusal import Refusal

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

#: Bytes a control message may have; uploads are not messages.
MAX_MESSAGE_BYTES = 16 * 1024

#: Bytes of an upload read at a time: granian builds a bytes object of each, which
#: stays in the cache at this size and would be mapped anew at that of a whole update.
PIECE_BYTES = 1 << 16

#: A WSGI environment (PEP 3333).
Environ = dict[str, Any]

M = TypeVar("M", bound=Message)


def read_body(environ: Environ, *, limit: int) -> bytes:
    """The request's body, bounded before it is read.

    Raises:
        Refusal: LENGTH_REQUIRED, TOO_LARGE, TRUNCATED.
    """
    length = content_length(environ)
    if length > limit:
        raise Refusal(TOO_LARGE, f"this request's body may have at most {limit} bytes")
    return receive(environ, length)


def content_length(environ: Environ) -> int:
    """Raises Refusal: LENGTH_REQUIRED."""
    text = environ.get("CONTENT_LENGTH") or ""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Refusal(LENGTH_REQUIRED, "send a Content-Length; chunked bodies are not read")
    return int(text)


def receive(environ: Environ, length: int) -> bytes:
    """Exactly `length` bytes of the body, or Refusal: TRUNCATED."""
    if not length:
        return b""
    stream = environ["wsgi.input"]
    try:
        body: bytes = stream.read(length)
        while len(body) < length:
            more = stream.read(length - len(body))
            if not more:
                break
            body += more
    except OSError as error:
        raise Refusal(TRUNCATED, f"the connection broke: {error}") from error
    if len(body) != length:
        raise Refusal(TRUNCATED, f"Content-Length says {length} bytes, {len(body)} arrived")
    return body


def receive_into(environ: Environ, place: memoryview) -> None:
    """Fills `place` from the body, or Refusal: TRUNCATED."""
    stream = environ["wsgi.input"]
    at = 0
    try:
        while at < len(place):
            piece = stream.read(min(len(place) - at, PIECE_BYTES))
            if not piece:
                break
            place[at : at + len(piece)] = piece
            at += len(piece)
    except OSError as error:
        raise Refusal(TRUNCATED, f"the connection broke: {error}") from error
    if at != len(place):
        raise Refusal(TRUNCATED, f"Content-Length says {len(place)} bytes, {at} arrived")


def read_message(environ: Environ, message_type: type[M]) -> M:
    """The body as a message.

    Raises:
        Refusal: UNSUPPORTED_MEDIA_TYPE, MALFORMED_MESSAGE, or as `read_body`.
    """
    content_type = environ.get("CONTENT_TYPE") or PROTOBUF
    # Parsing the header costs more than parsing the message: only if need be.
    media_type = content_type
    if content_type not in (PROTOBUF, JSON):
        media_type = parse_options_header(content_type)[0].lower()
    if media_type not in (PROTOBUF, JSON):
        raise Refusal(
            UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {content_type!r} is not understood: send {PROTOBUF} or {JSON}",
        )
    body = read_body(environ, limit=MAX_MESSAGE_BYTES)
    if not body:
        return message_type()
    try:
        if media_type == PROTOBUF:
            return message_type.FromString(body)
        if not body.lstrip().startswith(b"{"):
            # The parser takes a list for an object without members.
            raise ValueError("not a JSON object")
        return json_format.Parse(body, message_type(), ignore_unknown_fields=True)
    except (DecodeError, json_format.ParseError, ValueError, RecursionError) as error:
        raise Refusal(
            MALFORMED_MESSAGE, f"the body is not a {message_type.DESCRIPTOR.name}: {error}"
        ) from error


def encode_message(environ: Environ, message: Message) -> tuple[str, bytes]:
    """Content type and body, in the form that Accept prefers, else in the request's own."""
    json = wants_json(environ)
    return (JSON if json else PROTOBUF), encode(message, json=json)


def encode(message: Message, *, json: bool) -> bytes:
    """The message as protobuf, or in its JSON mapping."""
    if json:
        return json_format.MessageToJson(message, indent=2).encode() + b"\n"
    return message.SerializeToString()


def wants_json(environ: Environ) -> bool:
    accept = environ.get("HTTP_ACCEPT", "*/*")
    if accept == PROTOBUF:
        return False
    if accept != "*/*":
        accepted = parse_accept_header(accept, MIMEAccept)
        if accepted[JSON] != accepted[PROTOBUF]:
            return accepted[JSON] > accepted[PROTOBUF]
    return (environ.get("CONTENT_TYPE") or "").startswith(JSON)
