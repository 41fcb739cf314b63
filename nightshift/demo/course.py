"""What the server's admin API says of the demo while it runs."""

from dataclasses import dataclass, field
from typing import Any

from server.admin_client import AdminClient


@dataclass(frozen=True)
class Evaluation:
    """One committed evaluation: the model's round, its accuracy and how much was behind it."""

    model_round: int
    accuracy: float
    loss: float
    examples: int
    devices: int


@dataclass
class Course:
    """The demo's training and evaluation so far.

    Attributes:
        training: The training task, as the admin API describes it.
        rounds: Its ended rounds.
        evaluations: The committed evaluations, by model round.
        population: Session shapes and traffic.
    """

    training: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    open_rounds: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    population: dict[str, Any] = field(default_factory=dict)

    @property
    def committed(self) -> list[dict[str, Any]]:
        return [record for record in self.rounds if record["outcome"] == "committed"]

    @property
    def abandoned(self) -> list[dict[str, Any]]:
        return [record for record in self.rounds if record["outcome"] == "abandoned"]

    @property
    def progress(self) -> tuple[int, int]:
        """Committed rounds and evaluations."""
        return len(self.committed), len(self.evaluations)

    @property
    def finished(self) -> bool:
        """Every round is trained, and the last model is evaluated."""
        if self.training.get("status") != "completed":
            return False
        return any(e.model_round == self.training["head_round"] for e in self.evaluations)


def observe(client: AdminClient, training_id: str, evaluation_id: str) -> Course:
    """Asks the server. Raises AdminError."""
    training = client.get(f"tasks/{training_id}")
    rounds = client.get(f"tasks/{training_id}/rounds")["rounds"]
    evaluations = client.get(f"tasks/{evaluation_id}/rounds")["rounds"]
    return Course(
        training=training,
        rounds=[record for record in rounds if record["outcome"] != "open"],
        open_rounds=[record for record in rounds if record["outcome"] == "open"],
        evaluations=[
            Evaluation(
                model_round=record["base_model_round"],
                accuracy=metric(record["metrics"], "accuracy"),
                loss=metric(record["metrics"], "loss"),
                examples=int(metric(record["metrics"], "num_examples")),
                devices=record["statistics"]["accepted"],
            )
            for record in evaluations
            if record["outcome"] == "committed"
        ],
        population=client.get(f"populations/{training['population']}"),
    )


def metric(metrics: dict[str, Any], ending: str) -> float:
    """The metric whose name ends so; NaN if the model reports none."""
    for name, value in metrics.items():
        if name.endswith(ending):
            return float(value)
    return float("nan")
