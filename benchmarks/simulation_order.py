"""What TFF is asked to simulate beside the running system, and what came of it, as files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

Metrics = Mapping[str, float]


def weights_file(directory: Path, number: int) -> Path:
    """Where the system's model after that round is, as safetensors."""
    return directory / f"model-{number}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be simulated.

    Attributes:
        task_file: Of the task.
        clients: In each round of TFF's own sampling.
        cohorts: The recorded ones, of rounds 1, 2, ...
        compared: Numbers of the models that are evaluated.
        seeds: Of TFF's own samplings, a simulation each.
    """

    task_file: str
    clients: int
    cohorts: Sequence[Sequence[str]]
    compared: Sequence[int]
    seeds: Sequence[int]

    def write(self, directory: Path) -> None:
        (directory / "order.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, directory: Path) -> "Order":
        return cls(**json.loads((directory / "order.json").read_text()))


@dataclass(frozen=True, kw_only=True)
class Result:
    """Metrics on the held-out clients by TFF's evaluation; lists are as Order.compared.

    Attributes:
        system: Of the system's models.
        repeated: Of TFF's models on the recorded cohorts.
        sampled: Of TFF's models on cohorts of its own, for each of the seeds.
        moved: Of TFF's models on the recorded cohorts, from initial weights that were moved
            to the next float32 number: what rounding alone makes of the same rounds.
        differences: |system - repeated| / |repeated|, L2 norms of all weights.
        apart: |moved - repeated| / |repeated| likewise.
        learned: |repeated - initial| / |repeated| likewise.
    """

    system: Sequence[Metrics]
    repeated: Sequence[Metrics]
    sampled: Sequence[Sequence[Metrics]]
    moved: Sequence[Metrics]
    differences: Sequence[float]
    apart: Sequence[float]
    learned: Sequence[float]

    def write(self, directory: Path) -> None:
        (directory / "result.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, directory: Path) -> "Result":
        return cls(**json.loads((directory / "result.json").read_text()))
