"""The work of a graph against the runtime's shapes, hand arithmetic and TensorFlow's profiler."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_plan.archive import PlanArchive
from device_plan.report.cost import DeviceCost
from device_plan.report.execution import Execution, execute
from device_plan.report.memory import activations
from device_plan.report.work import Work, operations_without_a_cost, work_of
from device_plan.tflite_file import TfliteFile
from tests.device_plan.graphs import convert


def executed(graph: bytes, signature: str = "step", **shapes: tuple[int, ...]) -> Execution:
    file = TfliteFile.from_bytes(graph)
    defined = file.signatures[signature]
    inputs = {defined.inputs[name]: shape for name, shape in shapes.items()}
    # Scalars come first where they are all that is not open.
    batch = next(shape[0] for shape in shapes.values() if shape)
    return execute(file, defined.subgraph, inputs, open_side=batch)


def assert_the_runtime_agrees(
    graph: bytes, inputs: Mapping[str, np.ndarray], signature: str = "step"
) -> Execution:
    """Runs the graph and compares the shape of every tensor that it computed."""
    from tflite_runtime.interpreter import Interpreter, OpResolverType

    # Without the default delegate, and with every tensor kept, all shapes stay visible.
    interpreter = Interpreter(
        model_content=graph,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    file = TfliteFile.from_bytes(graph)
    defined = file.signatures[signature]
    assert defined.subgraph == 0, "the interpreter shows the tensors of the first graph only"
    for name, value in inputs.items():
        interpreter.resize_tensor_input(defined.inputs[name], value.shape)
    interpreter.allocate_tensors()
    for name, value in inputs.items():
        interpreter.set_tensor(defined.inputs[name], value)
    interpreter.invoke()
    execution = executed(graph, signature, **{key: value.shape for key, value in inputs.items()})
    compared = 0
    for operator in file.subgraphs[0].operators:
        for index in operator.outputs:
            ours, theirs = execution.tensors[index], interpreter.get_tensor(index)
            assert ours.shape == theirs.shape, operator
            assert np.dtype(ours.dtype) == theirs.dtype, operator
            if ours.known is not None:
                np.testing.assert_array_equal(ours.known, theirs, err_msg=str(operator))
            compared += 1
    assert compared
    return execution


def drawn(spec: Any, rows: int, seed: int = 0) -> np.ndarray:
    shape = [rows if side is None or side < 0 else side for side in spec[0]]
    values = np.random.default_rng(seed).uniform(0, 3, shape)
    return values.astype(spec[1])


def test_every_shape_of_the_digits_plan_is_the_runtimes(digits_plan: Path):
    plan = PlanArchive.open(digits_plan)
    manifest = plan.manifest
    inputs = {
        spec.name: drawn((spec.shape, spec.dtype), 7)
        for spec in manifest.signatures["batch"].inputs
    }
    execution = assert_the_runtime_agrees(plan.graph, inputs, "batch")
    assert not execution.assumed


def layers(x, filters, depthwise, weights, table, ids, transposed):
    """Most kinds of operations that change shapes, each on an open batch."""
    import tensorflow as tf

    batch = tf.shape(x)[0]
    conv = tf.nn.conv2d(x, filters, (1, 2, 1, 1), "SAME")
    dilated = tf.nn.conv2d(x, filters, 1, "VALID", dilations=(1, 2, 3, 1))
    depth = tf.nn.depthwise_conv2d(x, depthwise, (1, 2, 2, 1), "VALID")
    pooled = tf.nn.max_pool2d(conv, 2, 2, "SAME") + tf.nn.avg_pool2d(conv, 2, 2, "SAME")
    back = tf.nn.conv2d_transpose(
        conv, transposed, tf.stack([batch, 12, 10, 3]), (1, 2, 1, 1), "SAME"
    )
    flat = tf.reshape(pooled, [batch * 3, -1])
    dense = tf.matmul(flat, weights[: 5 * 8])
    words = tf.gather(table, ids)
    scores = tf.matmul(words, words, transpose_b=True)
    hot = tf.one_hot(ids, 9)
    parts = tf.split(words, 3, axis=2)
    padded = tf.pad(words, [[0, 0], [1, 2], [0, 0]])
    blocks = tf.nn.space_to_depth(back, 2)
    rows = tf.unstack(words, axis=1)
    summed = tf.math.unsorted_segment_sum(tf.reshape(words, [-1, 6]), tf.reshape(ids, [-1]), 9)
    results = {
        "dilated": tf.reduce_max(dilated, axis=(1, 2)),
        "depth": tf.transpose(depth, (0, 3, 1, 2)),
        "dense": tf.nn.softmax(dense),
        "scores": tf.cumsum(scores, axis=1),
        "hot": tf.argmax(hot, -1),
        "parts": tf.concat(parts[::-1], 1),
        "padded": padded[:, ::2, tf.newaxis, 1:-1],
        "blocks": tf.nn.depth_to_space(blocks, 2),
        "stacked": tf.stack(rows[::-1], 2),
        "tiled": tf.tile(words, tf.stack([1, 2, 1])),
        "filled": tf.fill([batch, 3], 2.0) * tf.ones([batch, 1]),
        "squeezed": tf.squeeze(tf.reduce_sum(words, 1, keepdims=True), [1]),
        "nd": tf.gather_nd(table, ids[:, :, tf.newaxis]),
        "top": tf.math.top_k(words, 2).values,
        "summed": summed,
        "mirrored": tf.reverse(words, [1]),
        "ranged": tf.cast(tf.range(batch * 2), tf.float32),
        "resized": tf.image.resize(x, (5, 7)),
    }
    return {name: tf.identity(value) for name, value in results.items()}


LAYERS = {
    "x": ((None, 12, 10, 3), "float32"),
    "filters": ((2, 3, 3, 8), "float32"),
    "depthwise": ((3, 2, 3, 2), "float32"),
    "weights": ((41, 4), "float32"),
    "table": ((9, 6), "float32"),
    "ids": ((None, 4), "int32"),
    "transposed": ((2, 3, 3, 8), "float32"),
}


@pytest.fixture(scope="module")
def layered() -> bytes:
    return convert(step=(layers, LAYERS))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_every_shape_of_many_operations_is_the_runtimes(layered: bytes, rows: int):
    inputs = {name: drawn(spec, rows) for name, spec in LAYERS.items()}
    execution = assert_the_runtime_agrees(layered, inputs)
    assert not execution.assumed
    assert not operations_without_a_cost(execution.steps)
    kinds = {step.operator.name for step in execution.steps}
    assert len(kinds) >= 30, sorted(kinds)


def matrix_work(execution: Execution) -> int:
    return work_of(execution.steps).multiply_adds


def test_a_loop_is_counted_for_each_of_its_turns():
    import tensorflow as tf

    def step(x):
        _, y = tf.while_loop(
            lambda turn, _: turn < 6, lambda turn, y: (turn + 2, tf.matmul(y, y)), (0, x)
        )
        return {"y": y}

    graph = convert(step=(step, {"x": (5, 5)}))
    execution = executed(graph, x=(5, 5))
    assert matrix_work(execution) == 3 * 5 * 5 * 5
    assert not execution.assumed


def test_a_loop_whose_turns_depend_on_the_data_is_counted_once_and_said_to_be():
    import tensorflow as tf

    def step(x):
        (y,) = tf.while_loop(lambda y: tf.reduce_sum(y) < 100.0, lambda y: (tf.matmul(y, y),), (x,))
        return {"y": y}

    execution = executed(convert(step=(step, {"x": (5, 5)})), x=(5, 5))
    assert matrix_work(execution) == 5 * 5 * 5
    assert execution.assumed == ["a WHILE whose turns depend on the data is taken as one"]


def test_a_shape_that_depends_on_the_data_is_assumed_and_said_to_be():
    import tensorflow as tf

    graph = convert(step=(lambda x: {"y": tf.where(x > 1.0) + 1}, {"x": (None,)}))
    execution = executed(graph, x=(7,))
    assert len(execution.assumed) == 1
    assert execution.assumed[0].startswith("WHERE has no shape rule")


sides = st.integers(1, 7)


@settings(max_examples=12)
@given(batch=sides, m=sides, k=sides, n=sides, adjoint=st.booleans())
def test_a_matrix_product_has_its_three_sides_multiplied(batch, m, k, n, adjoint):
    import tensorflow as tf

    x, y = (batch, m, k), (batch, n, k) if adjoint else (batch, k, n)

    def step(x, y):
        return {"z": tf.matmul(x, y, transpose_b=adjoint)}

    execution = executed(convert(step=(step, {"x": x, "y": y})), x=x, y=y)
    assert matrix_work(execution) == batch * m * k * n


@settings(max_examples=12)
@given(
    rows=st.integers(1, 3),
    side=st.integers(5, 9),
    window=st.integers(1, 4),
    channels=st.tuples(sides, sides),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["SAME", "VALID"]),
)
def test_a_convolution_costs_what_tensorflows_profiler_says(
    rows, side, window, channels, stride, padding
):
    import tensorflow as tf

    x, filters = (rows, side, side, channels[0]), (window, window, *channels)

    def step(x, filters):
        return {"y": tf.nn.conv2d(x, filters, stride, padding)}

    execution = executed(
        convert(step=(step, {"x": (None, *x[1:]), "filters": filters})), x=x, filters=filters
    )
    profiled = profile(step, x=x, filters=filters)
    assert 2 * matrix_work(execution) == profiled["Conv2D"]


def profile(step: Any, **shapes: tuple[int, ...]) -> dict[str, int]:
    """Floating-point operations by TensorFlow's own count, by the operation's type."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    specs = [tf.TensorSpec(shape, tf.float32, name) for name, shape in shapes.items()]
    concrete = tf.function(step, autograph=False).get_concrete_function(*specs)
    graph = convert_variables_to_constants_v2(concrete).graph
    options = (
        tf.compat.v1.profiler.ProfileOptionBuilder(
            tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        )
        .with_empty_output()
        .build()
    )
    found: dict[str, int] = {}
    types = {operation.name: operation.type for operation in graph.get_operations()}

    def add(node: Any) -> None:
        if node.name in types:
            kind = types[node.name]
            found[kind] = found.get(kind, 0) + node.float_ops
        for child in node.children:
            add(child)

    add(tf.compat.v1.profiler.profile(graph, options=options))
    return found


def test_other_convolutions_cost_an_element_of_the_filter_for_each_element_it_falls_on():
    import tensorflow as tf

    def step(x, depthwise, transposed):
        return {
            "depthwise": tf.nn.depthwise_conv2d(x, depthwise, (1, 2, 2, 1), "SAME"),
            "transposed": tf.nn.conv2d_transpose(x, transposed, (3, 10, 10, 5), 2, "SAME"),
        }

    shapes = {"x": (3, 5, 5, 2), "depthwise": (3, 3, 2, 4), "transposed": (3, 3, 5, 2)}
    execution = executed(convert(step=(step, shapes)), **shapes)
    costs = {
        step.operator.name: work_of([step]).multiply_adds
        for step in execution.steps
        if work_of([step]).multiply_adds
    }
    assert costs == {
        # 3 x 3 x 3 pixels of 8 channels, each from 3 x 3.
        "DEPTHWISE_CONV_2D": 3 * 3 * 3 * 8 * 9,
        # 3 x 5 x 5 pixels of 2 channels, each into 3 x 3 of 5 channels.
        "TRANSPOSE_CONV": 3 * 5 * 5 * 2 * 9 * 5,
    }


def test_elements_and_bytes_are_counted_as_documented():
    import tensorflow as tf

    def step(x, table, ids):
        return {
            "doubled": tf.exp(x),
            "sums": tf.reduce_sum(x, axis=1),
            "soft": tf.nn.softmax(x),
            "rows": tf.gather(table, ids),
        }

    shapes = {"x": (4, 6), "table": (1000, 3), "ids": ((2,), "int32")}
    graph = convert(step=(step, shapes))
    execution = executed(graph, x=(4, 6), table=(1000, 3), ids=(2,))
    found = {step.operator.name: work_of([step]) for step in execution.steps}
    axis = 4  # bytes of the axis that SUM reads
    assert found["EXP"] == Work(0, 24, 96, 96, 1)
    assert found["SUM"] == Work(0, 24, 96 + axis, 16, 1)
    assert found["SOFTMAX"] == Work(0, 72, 96, 96, 1)
    # Two rows of three float32 and two indices, not the table of 12,000 bytes.
    assert found["GATHER"] == Work(0, 0, 24 + 8, 24, 1)


@pytest.fixture(scope="module")
def digits(digits_plan: Path) -> DeviceCost:
    return DeviceCost(PlanArchive.open(digits_plan).variants[0])


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_a_training_step_of_the_digits_model_costs_five_products(digits: DeviceCost, rows: int):
    # Forward 64x128 and 128x10; backward one product for each kernel's gradient,
    # and one for the gradient of the hidden layer. The input needs none.
    forward = 64 * 128 + 128 * 10
    assert digits.signature("eval", rows).work.multiply_adds == rows * forward
    step = digits.signature("batch", rows)
    assert step.work.multiply_adds == rows * (forward + 64 * 128 + 2 * 128 * 10)
    assert not step.assumed
    assert not step.uncounted


def test_a_training_step_costs_what_tensorflows_profiler_says(digits: DeviceCost):
    import tensorflow as tf

    def step(x, hidden, logits):
        with tf.GradientTape() as tape:
            tape.watch([hidden, logits])
            loss = tf.nn.softmax(tf.nn.relu(x @ hidden) @ logits)[:, 0]
        return tape.gradient(loss, [hidden, logits])

    profiled = profile(step, x=(5, 64), hidden=(64, 128), logits=(128, 10))
    assert 2 * digits.signature("batch", 5).work.multiply_adds == profiled["MatMul"]


def test_a_session_is_all_its_batches_in_all_epochs(digits: DeviceCost):
    assert (digits.manifest.batch_size, digits.manifest.epochs) == (5, 5)
    full, rest = (digits.signature("batch", rows).work for rows in (5, 3))
    ends = digits.signature("begin", 5).work + digits.signature("finish", 5).work
    assert digits.training(13) == ends + (full * 2 + rest) * 5
    assert digits.steps(13) == 15


def test_memory_of_activations_lies_between_the_largest_operation_and_all_tensors(
    digits: DeviceCost,
):
    found = digits.signature("batch", 5).activations
    # The hidden layer, its sign and both kernels with what they become are alive together.
    assert found.peak_bytes > 4 * (64 * 128 + 2 * 5 * 128)
    assert found.peak_bytes < found.all_bytes


def test_memory_of_a_chain_is_its_largest_pair():
    import tensorflow as tf

    def step(x):
        wide = tf.tile(x, [1, 64])  # 4 x 1024 float32
        return {"y": tf.reduce_sum(tf.reduce_max(tf.exp(wide), axis=1))}

    graph = convert(step=(step, {"x": (4, 16)}))
    file = TfliteFile.from_bytes(graph)
    found = activations(file, 0, executed(graph, x=(4, 16)))
    wide, narrow, tiny = 4 * 1024 * 4, 4 * 16 * 4, 64
    # The input and the result live all the time; TILE's and EXP's results together.
    assert found.peak_bytes == narrow + 2 * wide
    assert found.all_bytes == narrow + 2 * wide + 2 * tiny
