"""The Flower app under measurement: FedAvg of one array. Runs in Flower's own environment.

One round warms up before the rounds that count: in it every node fetches the run
and the app, once. The app stops before the first round that counts and after the
last one until whoever measures has read the CPU times of all processes.
"""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

#: Rounds before those that count.
WARM_UP = 1

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Answers with an array of its own: equal ones would be stored and sent only once."""
    (array,) = message.content["arrays"].to_numpy_ndarrays()
    seed = [context.node_id, message.content["config"]["server-round"]]
    noise = np.random.default_rng(seed).standard_normal(array.size, np.float32)
    content = RecordDict(
        {
            "arrays": ArrayRecord([array + noise]),
            "metrics": MetricRecord({"num-examples": 1}),
        }
    )
    return Message(content, reply_to=message)


class MeasuredFedAvg(FedAvg):
    """FedAvg that notes its rounds and stops to be measured.

    Args:
        directory: Where it says how far it is.
        nodes: In every round.
        last: Round.
    """

    def __init__(self, *, directory: Path, nodes: int, last: int) -> None:
        super().__init__(min_train_nodes=nodes, min_available_nodes=nodes, fraction_evaluate=0.0)
        self._directory = directory
        self._last = last
        self._rounds: list[dict[str, float]] = []
        self._started = 0.0

    def configure_train(self, server_round, *arguments):
        if server_round == WARM_UP + 1:
            self._stop_at("begin")
        self._started = time.monotonic()
        return super().configure_train(server_round, *arguments)

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        aggregate = super().aggregate_train(server_round, replies)
        seconds = time.monotonic() - self._started
        updates = sum(not reply.has_error() for reply in replies)
        self._rounds.append({"seconds": seconds, "updates": updates})
        (self._directory / "progress").write_text(str(server_round))
        if server_round == self._last:
            self._stop_at("end")
        return aggregate

    def _stop_at(self, name: str) -> None:
        """Says that it is there and waits until this was seen."""
        partial = self._directory / f"{name}.partial"
        partial.write_text(json.dumps(self._rounds[WARM_UP:]))
        partial.rename(self._directory / name)
        seen = self._directory / f"{name}.seen"
        while not seen.exists():
            time.sleep(0.02)


@server.main()
def main(grid: Grid, context: Context) -> None:
    settings = context.run_config
    last = WARM_UP + int(settings["rounds"])
    strategy = MeasuredFedAvg(
        directory=Path(settings["directory"]), nodes=int(settings["nodes"]), last=last
    )
    zeros = np.zeros(int(settings["parameters"]), np.float32)
    strategy.start(grid=grid, initial_arrays=ArrayRecord([zeros]), num_rounds=last)
