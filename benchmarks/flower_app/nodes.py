"""Many Flower nodes in one process. Runs in Flower's own environment: `nodes.py ADDRESS NODES`.

Each node is what `flower-supernode` is to the SuperLink: its connection, keys,
heartbeats and requests are made by Flower's own client code, in the order and at the
poll interval of `flwr.supernode.start_client_internal`. What a node does on its own
side is left out: it calls the ClientApp, where a SuperNode starts a process for it.
"""

import os
import sys
import threading
import time
import traceback
from functools import partial
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supernode.fleet_http_connection import http_request_response
from mean import client

#: Seconds a SuperNode sleeps when there was no message for it.
POLL_S = 3.0


def answer(connection: Any, known_runs: set[int]) -> bool:
    """One turn of a SuperNode's loop; False if there was no message."""
    node_id, receive, send, get_run, get_fab, pull, push, confirm = connection
    received = receive()
    if received is None:
        return False
    announced, tree = received
    run_id = announced.metadata.run_id
    if run_id not in known_runs:
        get_fab(get_run(run_id).fab_hash, run_id)
        known_runs.add(run_id)
    message = pull_and_inflate_object_from_tree(
        tree, partial(pull, run_id), partial(confirm, run_id), return_type=Message
    )
    message.metadata.__dict__["_message_id"] = tree.object_id
    context = Context(
        run_id=run_id, node_id=node_id, node_config={}, state=RecordDict(), run_config={}
    )
    started = time.monotonic()
    reply = client(message, context)
    taken = time.monotonic() - started
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        reply_tree = get_object_tree(reply)
        objects = get_all_nested_objects(reply)
        missing, session_id = send(reply, reply_tree, taken)
        push_objects(objects, partial(push, run_id, session_id), object_ids_to_push=missing)
    return True


def run_node(address: str, delay_s: float) -> None:
    # SuperNodes do not all start at once, so neither do their polls coincide.
    time.sleep(delay_s)
    known_runs: set[int] = set()
    with http_request_response(address, insecure=True) as connection:
        while True:
            try:
                worked = answer(connection, known_runs)
            except Exception:
                traceback.print_exc()
                worked = False
            if not worked:
                time.sleep(POLL_S)


def main() -> None:
    address, nodes = sys.argv[1], int(sys.argv[2])
    for number in range(nodes):
        threading.Thread(
            target=run_node, args=(address, POLL_S * number / nodes), daemon=True
        ).start()
    # Whoever started this process holds the other end and is gone when it ends.
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
