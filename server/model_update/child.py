"""The model-update process's life, without TensorFlow: it begins and ends with its parent."""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from server.model_update.messages import Message, receive, send

_PR_SET_PDEATHSIG = 1


def connect(arguments: list[str]) -> socket.socket:
    """The stream to the parent, which gave its descriptor and its own process id.

    From here on the process dies with the parent, even if that is killed.
    """
    descriptor, parent = (int(argument) for argument in arguments)
    # Ctrl-C reaches the whole terminal; the parent decides when its child ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot ask to die with the parent")
    if os.getppid() != parent:
        sys.exit("the parent has died already")
    return socket.socket(fileno=descriptor)


def serve(stream: socket.socket, handle: Callable[[Message], Message]) -> None:
    """Answer messages until the parent closes the stream; an exception becomes `failed`."""
    # A parent that went away while it was answered is a closed stream too.
    with suppress(ConnectionError):
        send(stream, Message("ready"))
        while (request := receive(stream)) is not None:
            try:
                answer = handle(request)
            except Exception as error:
                answer = failure(error)
            send(stream, answer)


def failure(error: BaseException) -> Message:
    """The answer that something failed, in words."""
    return Message("failed", {"message": f"{type(error).__name__}: {error}"[:4000]})
