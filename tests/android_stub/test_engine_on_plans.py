"""What holds for any plan: shapes, counts and sums, on the small one and on the digits."""

from pathlib import Path

import numpy as np
import pytest

from android_stub import engine as engine_module
from android_stub.engine import Engine
from device_plan.archive import DevicePart, PlanArchive
from device_plan.checkpoint import Layout, decode, encode
from tests.android_stub import linear_plan


@pytest.fixture(params=["linear", "digits"])
def plan(request: pytest.FixtureRequest) -> tuple[DevicePart, dict[str, np.ndarray]]:
    """A device part and a checkpoint to start from."""
    if request.param == "linear":
        return request.getfixturevalue("linear"), linear_plan.checkpoint()
    path: Path = request.getfixturevalue("digits_plan")
    archive = PlanArchive.open(path)
    return DevicePart.from_bytes(archive.device_part()), decode(archive.initial_checkpoint)


def _examples(plan: DevicePart, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        spec.name: (rng.random((count, *spec.shape[1:])) * 9).astype(spec.dtype)
        for spec in plan.manifest.examples
    }


def _never(done: int, total: int) -> None:
    pass


def test_training_gives_what_the_server_expects(plan):
    part, checkpoint = plan
    manifest = part.manifest
    count = 2 * manifest.batch_size + 1
    outcome = Engine(part).run(
        "training",
        checkpoint=checkpoint,
        examples=_examples(part, count),
        before_batch=_never,
    )
    layout = Layout(manifest.update)
    assert len(encode(outcome.tensors)) == layout.file_size
    layout.check(outcome.tensors)
    assert outcome.examples == count
    assert outcome.batches == 3 * max(1, manifest.epochs)
    assert 0 < float(outcome.tensors[manifest.weight_tensor]) <= manifest.max_weight
    assert all(np.isfinite(value).all() for value in outcome.tensors.values())
    assert any(np.abs(value).sum() > 0 for value in outcome.tensors.values())


def test_equal_examples_give_equal_bytes_on_any_engine(plan):
    part, checkpoint = plan
    examples = _examples(part, 7)
    first, second = (
        Engine(part).run("training", checkpoint=checkpoint, examples=examples, before_batch=_never)
        for _ in range(2)
    )
    assert encode(first.tensors) == encode(second.tensors)


def test_an_engine_that_holds_one_signature_at_a_time_gives_equal_bytes(plan, monkeypatch):
    part, checkpoint = plan
    examples = _examples(part, 7)

    def results(engine: Engine) -> list[bytes]:
        # The second training begins after memory was given up.
        computations = ("training", "evaluation", "training")
        return [
            encode(
                engine.run(
                    computation, checkpoint=checkpoint, examples=examples, before_batch=_never
                ).tensors
            )
            for computation in computations
        ]

    expected = results(Engine(part))
    monkeypatch.setattr(engine_module, "LARGE_MODEL", 0)
    assert results(Engine(part)) == expected


def test_metrics_of_all_examples_are_the_sum_of_their_parts(plan):
    part, checkpoint = plan
    size = part.manifest.batch_size
    examples = _examples(part, 2 * size + 3)
    engine = Engine(part)

    def evaluate(chosen: slice) -> dict[str, np.ndarray]:
        some = {name: array[chosen] for name, array in examples.items()}
        outcome = engine.run(
            "evaluation", checkpoint=checkpoint, examples=some, before_batch=_never
        )
        Layout(part.manifest.metrics).check(outcome.tensors)
        return outcome.tensors

    whole, first, rest = evaluate(slice(None)), evaluate(slice(size)), evaluate(slice(size, None))
    for name, value in whole.items():
        np.testing.assert_allclose(value, first[name] + rest[name], rtol=1e-5)
