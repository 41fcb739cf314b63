"""Messages arrive as they were sent, or not at all."""

import json
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model_update import messages
from server.model_update.messages import BrokenStream, Message, MessageTooLarge, receive, send

Streams = tuple[socket.socket, socket.socket]

FIELDS = st.dictionaries(
    st.text(max_size=9),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ).filter(lambda value: "inf" not in repr(value)),
    max_size=4,
)


@pytest.fixture
def streams() -> Iterator[Streams]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@given(
    sent=st.lists(
        st.builds(
            Message,
            kind=st.text(max_size=9),
            fields=FIELDS,
            attachments=st.lists(st.binary(max_size=99), max_size=3).map(tuple),
        ),
        max_size=3,
    )
)
def test_messages_arrive_as_they_were_sent(sent: list[Message]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in sent:
            send(ours, message)
        ours.close()
        assert [receive(theirs) for _ in sent] == sent
        assert receive(theirs) is None


def test_an_attachment_larger_than_the_sockets_buffer_arrives(streams: Streams) -> None:
    message = Message("big", {}, (bytes(range(256)) * 40_000, b"", b"last"))
    sender = threading.Thread(target=send, args=(streams[0], message))
    sender.start()
    assert receive(streams[1]) == message
    sender.join()


@given(cut=st.integers(1, 60))
def test_a_stream_that_ends_within_a_message_is_broken(cut: int) -> None:
    header = json.dumps({"kind": "k", "fields": {}, "sizes": [20]}).encode()
    whole = struct.pack("<I", len(header)) + header + bytes(20)
    assert cut < len(whole)
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(whole[:cut])
        with pytest.raises(BrokenStream, match="too early"):
            receive(theirs)


@pytest.mark.parametrize(
    "header",
    [
        b"not JSON",
        b"[]",
        b"{}",
        b'{"kind": 1, "fields": {}, "sizes": []}',
        b'{"kind": "k", "fields": [], "sizes": []}',
        b'{"kind": "k", "fields": {}, "sizes": [-1]}',
        b'{"kind": "k", "fields": {}, "sizes": [true]}',
        b'{"kind": "k", "fields": {}, "sizes": [3000000000]}',
        b"\xff",
    ],
)
def test_what_is_not_a_message_is_refused(streams: Streams, header: bytes) -> None:
    streams[0].sendall(struct.pack("<I", len(header)) + header)
    with pytest.raises(BrokenStream, match="header"):
        receive(streams[1])


def test_a_huge_header_is_refused_before_it_is_read(streams: Streams) -> None:
    streams[0].sendall(struct.pack("<I", 2**32 - 1))
    with pytest.raises(BrokenStream, match="4294967295"):
        receive(streams[1])


def test_a_message_over_the_bounds_is_not_sent(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MAX_ATTACHED_BYTES", 10)
    with pytest.raises(MessageTooLarge):
        send(streams[0], Message("k", {}, (bytes(6), bytes(5))))
    with pytest.raises(MessageTooLarge):
        send(streams[0], Message("k", {"text": "x" * messages.MAX_HEADER_BYTES}))
    send(streams[0], Message("next"))
    assert receive(streams[1]) == Message("next")
