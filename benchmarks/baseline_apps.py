"""What the server is compared with: the least that Flask on the same granian can do."""

from flask import Flask, Response, request

#: A protobuf answer as long as a rejection.
ANSWER = bytes(48)


def bare_view() -> Flask:
    """One view that reads a small body and answers a few bytes."""
    app = Flask("bare")

    @app.post("/v1/populations/<path:population>/checkins")
    def view(**_: str) -> Response:
        request.get_data()
        return Response(ANSWER, content_type="application/x-protobuf")

    return app


def read_and_drop() -> Flask:
    """One view that reads an upload and forgets it."""
    app = Flask("drop")

    @app.put("/v1/sessions/<session_id>/update")
    def view(**_: str) -> Response:
        stream = request.environ["wsgi.input"]
        left = int(request.environ["CONTENT_LENGTH"])
        while left > 0:
            piece = stream.read(min(left, 1 << 18))
            if not piece:
                break
            left -= len(piece)
        return Response(ANSWER, content_type="application/x-protobuf")

    return app
