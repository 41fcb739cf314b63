"""A model-update process without TensorFlow whose computations fail as the plan's name says."""

import os
import sys
import time
from pathlib import Path

from device_plan.plan_pb2 import ServerPart
from server.model_update.child import connect, failure, serve
from server.model_update.messages import Message, send

#: The behaviour and a file, as the metrics' names in the ServerPart that is loaded.
loaded: dict[str, tuple[str, Path]] = {}


def handle(request: Message) -> Message:
    key = request.fields["key"]
    if request.kind == "load":
        behaviour, path = (s.name for s in ServerPart.FromString(request.attachments[0]).metrics)
        loaded[key] = behaviour, Path(path)
        return Message("loaded")
    if key not in loaded:
        return Message("unknown")
    behaviour, path = loaded[key]
    if behaviour == "dies once" and not path.exists():
        path.touch()
        os.abort()
    if behaviour == "dies always":
        os.abort()
    if behaviour == "hangs":
        path.touch()
        time.sleep(3600)
    if behaviour == "is noisy":
        for _ in range(1000):
            print("x" * 1000, flush=True)  # noqa: T201
        print("the last words", file=sys.stderr, flush=True)  # noqa: T201
    if behaviour == "takes turns":
        path.touch(exist_ok=False)
        time.sleep(0.01)
        path.unlink()
    return Message("applied", {"metrics": {"pid": os.getpid()}}, request.attachments)


if __name__ == "__main__":
    stream = connect(sys.argv[1:])
    if os.environ.get("UNRELIABLE_START") == "fails":
        send(stream, failure(ImportError("no module named tensorflow")))
    elif os.environ.get("UNRELIABLE_START") == "hangs":
        time.sleep(3600)
    else:
        serve(stream, handle)
