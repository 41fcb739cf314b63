"""The models whose training steps are measured: the zoo's example tasks, and attention."""

from pathlib import Path
from typing import Any

from device_plan.task import FederatedTask
from device_plan.task_file import load_task
from tests.tflite_models.case import Feature, LayerCase, graph

#: Example tasks by what the tables call them.
TASKS = {
    "digits MLP": "digits_task",
    "ranking, logistic": "ranking_logistic_task",
    "ranking, deep": "ranking_task",
    "activity CNN": "activity_task",
    "EMNIST CNN": "emnist_task",
    "Shakespeare LSTM": "shakespeare_task",
    "next-word CIFG LSTM": "next_word_task",
}
#: A transformer block over this many of so many words, and its width.
WORDS, VOCABULARY, WIDTH = 20, 2000, 64
EXAMPLES = Path(__file__).parent.parent / "examples"


def names() -> list[str]:
    return [*TASKS, "logistic, 784 to 10", "attention"]


def task(name: str) -> FederatedTask:
    """The task of a name in the tables."""
    if name in TASKS:
        return load_task(EXAMPLES / f"{TASKS[name]}.py")
    if name == "attention":
        words = Feature((WORDS,), VOCABULARY)
        return LayerCase(
            name=name, x=words, network=graph(_attention), batch_size=16, epochs=1
        ).task()
    return LayerCase(
        name=name,
        x=Feature((784,)),
        y=Feature((), 10),
        network=graph(lambda _, x: x, outputs=10),
        batch_size=20,
        epochs=1,
    ).task()


def _attention(k: Any, x: Any) -> Any:
    h = k.Embedding(VOCABULARY, WIDTH)(x)
    h = k.LayerNormalization()(h + k.MultiHeadAttention(4, WIDTH // 4)(h, h))
    f = k.Dense(WIDTH)(k.Dense(4 * WIDTH, activation="relu")(h))
    return k.GlobalAveragePooling1D()(k.LayerNormalization()(h + f))
