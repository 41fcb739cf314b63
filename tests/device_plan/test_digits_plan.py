"""The digits plan on tflite-runtime against TFF's own simulation of the same process."""

from pathlib import Path

import numpy as np
import pytest
from tflite_runtime.interpreter import Interpreter

from device_plan import checkpoint
from device_plan.archive import PlanArchive


@pytest.fixture(scope="module")
def plan(digits_plan: Path) -> PlanArchive:
    return PlanArchive.open(digits_plan)


@pytest.fixture(scope="module")
def simulation():
    """TFF's process and evaluation of the digits task; its workers end with the module."""
    import tensorflow_federated as tff

    from device_plan.compiler.oracle import start_worker, tff_runtime
    from examples.digits_task import task

    with tff_runtime():
        start_worker()
        yield (
            task.process_fn(task.model_fn),
            tff.learning.algorithms.build_fed_eval(task.model_fn),
        )


@pytest.fixture(scope="module")
def device(plan: PlanArchive):
    """Calls a signature of the plan's graph with whatever it needs of the given tensors."""
    interpreter = Interpreter(model_content=plan.graph, num_threads=1)

    def call(name: str, *sources: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {key: value for source in sources for key, value in source.items()}
        needed = [spec.name for spec in plan.manifest.signatures[name].inputs]
        return interpreter.get_signature_runner(name)(**{key: values[key] for key in needed})

    return call


def digits(seed: int, count: int) -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits

    chosen = np.random.default_rng(seed).choice(1797, count, replace=False)
    images, labels = load_digits(return_X_y=True)
    return {
        "x": (images[chosen] / 16).astype(np.float32),
        "y": labels[chosen].astype(np.int64),
    }


def dataset(examples: dict[str, np.ndarray], size: int, epochs: int):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(examples).batch(size).repeat(epochs)


def parts(examples: dict[str, np.ndarray], size: int):
    for start in range(0, len(examples["y"]), size):
        yield {name: value[start : start + size] for name, value in examples.items()}


def global_weights(process, plan):
    """TFF's state before round 1, with the plan's initial weights."""
    import tensorflow_federated as tff

    weights = checkpoint.decode(plan.initial_checkpoint)
    names = [spec.name for spec in plan.manifest.checkpoint if "/learning_rate" not in spec.name]
    model = tff.learning.models.ModelWeights([weights[name] for name in names], [])
    return process.set_model_weights(process.initialize(), model), weights, names


@pytest.mark.parametrize(("count", "epochs"), [(5, 1), (13, 1), (17, 3)])
def test_a_session_gives_the_step_of_tffs_round_with_one_client(
    count, epochs, plan, device, simulation
):
    process, _ = simulation
    size = plan.manifest.batch_size
    before, weights, names = global_weights(process, plan)
    examples = digits(count, count)
    after = process.next(before, [dataset(examples, size, epochs)])
    expected = process.get_model_weights(after.state).trainable

    state = device("begin", weights)
    for _ in range(epochs):
        for batch in parts(examples, size):
            state = device("batch", weights, state, batch)
    update = device("finish", weights, state)

    assert update["weight"] == count * epochs
    for name, value in zip(names, expected, strict=True):
        # With one client and a server learning rate of 1 the mean is the client's step.
        reached = weights[name] - update[f"delta/{name}"] / update["weight"]
        np.testing.assert_allclose(reached, value, atol=1e-6)
    measured = after.metrics["client_work"]["train"]
    loss = update["metrics/loss/0"] / update["metrics/loss/1"]
    assert loss == pytest.approx(measured["loss"], rel=1e-5)
    assert update["metrics/num_examples/0"] == measured["num_examples"]


def test_evaluation_gives_tffs_metrics(plan, device, simulation):
    process, evaluation = simulation
    size = plan.manifest.batch_size
    before, weights, _ = global_weights(process, plan)
    examples = digits(1, 2 * size + 3)
    state = evaluation.set_model_weights(evaluation.initialize(), process.get_model_weights(before))
    output = evaluation.next(state, [dataset(examples, size, 1)])
    expected = output.metrics["client_work"]["eval"]["current_round_metrics"]

    total: dict[str, np.ndarray] = {}
    for batch in parts(examples, size):
        outputs = device("eval", weights, batch)
        assert outputs["prediction/0"].shape == (len(batch["x"]), 10)
        for spec in plan.manifest.metrics:
            total[spec.name] = total.get(spec.name, 0) + outputs[spec.name]

    for metric in ("loss", "accuracy"):
        ours = total[f"metrics/{metric}/0"] / total[f"metrics/{metric}/1"]
        assert ours == pytest.approx(expected[metric], rel=1e-5)
    assert total["metrics/num_examples/0"] == 2 * size + 3


def test_the_plan_says_what_devices_and_servers_need(plan):
    manifest = plan.manifest
    assert [spec.name for spec in manifest.examples] == ["x", "y"]
    assert [spec.name for spec in manifest.checkpoint] == [
        "hidden/kernel",
        "hidden/bias",
        "logits/kernel",
        "logits/bias",
        "client_work/learning_rate",
    ]
    assert dict(plan.server_part("training").model_weights)["logits/bias"] == (
        "global_model_weights/trainable/3"
    )
    metrics = [spec.name for spec in plan.server_part("evaluation").metrics]
    assert metrics == ["accuracy", "loss", "num_examples", "num_batches"]
    assert manifest.max_weight == manifest.epochs * manifest.example_selector.max_examples
    assert set(manifest.signatures) == {"begin", "batch", "finish", "eval"}
    assert all(signature.inputs for signature in manifest.signatures.values())
    assert manifest.runtimes[0].relative_difference <= 1e-5
    assert manifest.min_runtime_version


def test_constants_lie_where_devices_can_read_them(plan):
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(plan.graph, 0)
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0


def test_the_schedule_is_the_authors(plan):
    assert plan.schedule["rounds"] == 20
    assert plan.schedule["cohort"]["goal_count"] == 24
    assert plan.schedule["evaluation"]["every_rounds"] == 4
