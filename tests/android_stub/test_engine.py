import numpy as np
import pytest

from android_stub.engine import ComputationFailed, Engine, Engines, UnsupportedPlan
from device_plan.archive import DevicePart
from tests.android_stub import linear_plan, seeded_plan


def _never(done: int, total: int) -> None:
    pass


def _changed(plan: DevicePart, **fields) -> DevicePart:
    manifest = type(plan.manifest)()
    manifest.CopyFrom(plan.manifest)
    for name, value in fields.items():
        setattr(manifest, name, value)
    return DevicePart(manifest=manifest, graph=plan.graph)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 13])
def test_training_equals_numpy_with_partial_batches_and_epochs(linear: DevicePart, count: int):
    data = linear_plan.examples(count, seed=count)
    outcome = Engine(linear).run(
        "training", checkpoint=linear_plan.checkpoint(), examples=data, before_batch=_never
    )
    expected = linear_plan.train(linear_plan.checkpoint(), data)
    assert list(outcome.tensors) == ["weights_delta", "bias_delta", "weight"]
    for name, value in expected.items():
        assert outcome.tensors[name].dtype == np.float32
        assert outcome.tensors[name].shape == value.shape
        np.testing.assert_allclose(outcome.tensors[name], value, rtol=2e-5, atol=1e-5)
    assert outcome.examples == count
    assert outcome.batches == linear_plan.EPOCHS * -(-count // linear_plan.BATCH_SIZE)


def test_evaluation_sums_the_metrics_of_one_pass(linear: DevicePart):
    data = linear_plan.examples(11)
    outcome = Engine(linear).run(
        "evaluation", checkpoint=linear_plan.checkpoint(), examples=data, before_batch=_never
    )
    expected = linear_plan.evaluate(linear_plan.checkpoint(), data)
    for name, value in expected.items():
        assert outcome.tensors[name].shape == ()
        np.testing.assert_allclose(outcome.tensors[name], value, rtol=1e-5)
    assert outcome.batches == 3


def test_an_engine_can_be_used_again_with_other_counts(linear: DevicePart):
    engine = Engine(linear)
    for count in (9, 2, 9):
        data = linear_plan.examples(count, seed=3)
        outcome = engine.run(
            "training", checkpoint=linear_plan.checkpoint(), examples=data, before_batch=_never
        )
        expected = linear_plan.train(linear_plan.checkpoint(), data)["weights_delta"]
        np.testing.assert_allclose(outcome.tensors["weights_delta"], expected, rtol=2e-5, atol=1e-5)


def test_the_check_before_each_batch_can_end_the_computation(linear: DevicePart):
    seen = []

    class Stop(Exception):
        pass

    def before(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        Engine(linear).run(
            "training",
            checkpoint=linear_plan.checkpoint(),
            examples=linear_plan.examples(13),
            before_batch=before,
        )
    assert seen == [(0, 8), (1, 8), (2, 8)]


def test_tensors_that_the_plan_does_not_name_are_left_alone(linear: DevicePart):
    data = linear_plan.examples(4) | {"private": np.zeros(4)}
    Engine(linear).run(
        "training", checkpoint=linear_plan.checkpoint(), examples=data, before_batch=_never
    )


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ({"x": np.zeros((2, 3), np.float32)}, "no tensor 'y'"),
        ({"x": np.zeros((2, 4), np.float32), "y": np.zeros(2, np.float32)}, r"\[4\] per example"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(2, np.float32)}, "float64"),
        ({"x": np.zeros((2, 3), np.float32), "y": np.zeros(3, np.float32)}, "another length"),
        ({"x": np.zeros((0, 3), np.float32), "y": np.zeros(0, np.float32)}, "no example"),
    ],
)
def test_examples_that_do_not_fit_are_named(linear: DevicePart, examples, message: str):
    with pytest.raises(ComputationFailed, match=message):
        Engine(linear).run(
            "training",
            checkpoint=linear_plan.checkpoint(),
            examples=examples,
            before_batch=_never,
        )


def test_a_checkpoint_with_other_tensors_is_refused(linear: DevicePart):
    with pytest.raises(ComputationFailed, match="checkpoint: tensor 'bias' is missing"):
        Engine(linear).run(
            "training",
            checkpoint={"weights": np.zeros(3, np.float32)},
            examples=linear_plan.examples(4),
            before_batch=_never,
        )


def test_a_result_that_is_not_finite_is_never_uploaded(linear: DevicePart):
    with pytest.raises(ComputationFailed, match="not finite"):
        Engine(linear).run(
            "training",
            checkpoint=linear_plan.checkpoint(np.nan),
            examples=linear_plan.examples(4),
            before_batch=_never,
        )


def test_a_plan_for_a_newer_runtime_is_unsupported(linear: DevicePart):
    with pytest.raises(UnsupportedPlan, match=r"needs TFLite runtime 2\.99\.0"):
        Engine(_changed(linear, min_runtime_version="2.99.0"))


def test_a_graph_that_does_not_load_is_unsupported(linear: DevicePart):
    with pytest.raises(UnsupportedPlan, match="does not load"):
        Engine(DevicePart(manifest=linear.manifest, graph=b"no flatbuffer" * 10))


def test_an_ambiguous_or_unknown_input_name_is_unsupported(linear: DevicePart):
    plan = _changed(linear)
    plan.manifest.examples.add(name="weights", dtype="float32", shape=[-1])
    with pytest.raises(UnsupportedPlan, match="'weights'"):
        Engine(plan)


def test_a_thread_keeps_its_engine_and_another_has_its_own(linear: DevicePart):
    from concurrent.futures import ThreadPoolExecutor

    engines = Engines(per_thread=1)
    mine = engines.get("a", linear)
    assert engines.get("a", linear) is mine
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(engines.get, "a", linear).result() is not mine
    engines.get("b", linear)
    assert engines.get("a", linear) is not mine


@pytest.fixture(scope="module")
def seeded() -> DevicePart:
    return DevicePart.from_bytes(seeded_plan.PLAN.read_bytes())


def test_a_seeded_plan_begins_with_the_seed(seeded: DevicePart):
    outcome = Engine(seeded).run(
        "training",
        checkpoint=seeded_plan.checkpoint(),
        examples=seeded_plan.examples(5),
        before_batch=_never,
        seed=np.array([1, 30_000, 7], np.int32),
    )
    np.testing.assert_array_equal(outcome.tensors["seed"], np.float32([1, 30_000, 7]))


@pytest.mark.parametrize("seed", [None, np.ones(3, np.int64), np.ones(2, np.int32)])
def test_a_seeded_plan_is_not_trained_without_a_seed(seeded: DevicePart, seed: np.ndarray | None):
    with pytest.raises(ValueError, match=r"needs a seed of int32 \[3\]"):
        Engine(seeded).run(
            "training",
            checkpoint=seeded_plan.checkpoint(),
            examples=seeded_plan.examples(5),
            before_batch=_never,
            seed=seed,
        )


def test_only_a_plan_that_says_so_takes_a_seed(seeded: DevicePart):
    with pytest.raises(UnsupportedPlan, match="'session/seed'"):
        Engine(_changed(seeded, seeded=False))


def test_predictions_stay_on_the_device(seeded: DevicePart):
    # Two batches of four and one: the predictions' sizes differ, and nobody adds them.
    data = seeded_plan.examples(9)
    outcome = Engine(seeded).run(
        "evaluation",
        checkpoint=seeded_plan.checkpoint(),
        examples=data,
        before_batch=_never,
    )
    assert set(outcome.tensors) == {"sum"}
    expected = np.sum(data["x"].astype(np.float64) * seeded_plan.checkpoint()["scale"])
    np.testing.assert_allclose(outcome.tensors["sum"], expected, rtol=1e-5)
