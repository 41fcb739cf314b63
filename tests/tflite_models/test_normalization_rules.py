"""Batch normalization by rule equals TensorFlow's, and runs so on the device runtime."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_models.on_device import DeviceFunction

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, shape: tuple[int, ...], data_format: str) -> dict[str, np.ndarray]:
    """An input, its incoming gradient, and a value per channel for each parameter."""
    rng = np.random.default_rng(seed)
    channels = shape[-1] if data_format == "NHWC" else shape[1]

    def normal(*sides: int) -> np.ndarray:
        return rng.standard_normal(sides).astype(np.float32)

    return {
        "x": 3 + 2 * normal(*shape),
        "dy": normal(*shape),
        "scale": normal(channels),
        "offset": normal(channels),
        "mean": normal(channels),
        "variance": np.square(normal(channels)) + np.float32(0.25),
    }


def nchw(value: np.ndarray) -> np.ndarray:
    return np.moveaxis(value, -1, 1)


def reference(values: dict[str, np.ndarray], data_format: str, **attributes: object):
    """TensorFlow's output, running statistics and gradients; on a CPU it has NHWC only."""
    import tensorflow as tf

    x, dy = values["x"], values["dy"]
    if data_format == "NCHW":
        x, dy = (np.moveaxis(value, 1, -1) for value in (x, dy))
    given = [values[name] for name in ("scale", "offset", "mean", "variance")]
    forward = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=given[0], offset=given[1], mean=given[2], variance=given[3], **attributes
    )
    attributes.pop("exponential_avg_factor", None)
    # What its registered gradient takes: outside training the forward kernel need not fill these.
    statistics = (forward.reserve_space_1, forward.reserve_space_2)
    if not attributes["is_training"]:
        statistics = (given[2], given[3])
    backward = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=dy,
        x=x,
        scale=given[0],
        reserve_space_1=statistics[0],
        reserve_space_2=statistics[1],
        reserve_space_3=forward.reserve_space_3,
        **attributes,
    )
    outputs = [forward.y, forward.batch_mean, forward.batch_variance, *backward[:3]]
    arrays = [np.asarray(value) for value in outputs]
    if data_format == "NCHW":
        arrays[0], arrays[3] = nchw(arrays[0]), nchw(arrays[3])
    return arrays


def by_rule(x, dy, scale, offset, mean, variance, version="V3", **attributes):
    """What `reference` gives, from the rules."""
    from tflite_models.lowering.rules import RULES

    forward = RULES[f"FusedBatchNorm{version}"].apply(
        [x, scale, offset, mean, variance], attributes
    )
    backward = RULES[f"FusedBatchNormGrad{version}"].apply([dy, x, scale, *forward[3:]], attributes)
    return [*forward[:3], *backward[:3]]


def assert_close(ours, theirs):
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("version", ["", "V2", "V3"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@given(
    st.tuples(*[st.integers(1, 5)] * 4).filter(lambda s: s[0] * s[2] * s[3] > 2 and s[1] > 1),
    st.sampled_from([1.0, 0.25]),
    SEEDS,
)
@settings(max_examples=12)
def test_batch_normalization_equals_tensorflows(
    version, training, data_format, shape, factor, seed
):
    import tensorflow as tf

    if data_format == "NHWC":
        shape = (shape[0], shape[2], shape[3], shape[1])
    values = drawn(seed, shape, data_format)
    # Running statistics are not blended outside training, and TensorFlow wants it said so.
    attributes = {"epsilon": 0.01, "is_training": training}
    if training:
        attributes["exponential_avg_factor"] = factor
    expected = reference(values, data_format, **attributes)
    tensors = {name: tf.constant(value) for name, value in values.items()}
    ours = by_rule(**tensors, version=version, data_format=data_format, **attributes)
    assert_close(ours, expected)


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalization_runs_at_any_batch_size(training):
    attributes = {"epsilon": 0.01, "is_training": training}
    names = ("x", "dy", "scale", "offset", "mean", "variance")
    example = drawn(0, (2, 4, 3, 5), "NHWC")
    function = DeviceFunction(
        lambda *values: by_rule(**dict(zip(names, values, strict=True)), **attributes),
        [example[name] for name in names],
        dynamic=(0, 1),
    )
    for size in (1, 2, 7):
        values = drawn(size, (size, 4, 3, 5), "NHWC")
        ours = function(*(values[name] for name in names))
        assert_close(ours, reference(values, "NHWC", **attributes))


def test_normalization_with_channels_first_runs_at_any_batch_size():
    attributes = {"epsilon": 0.01, "is_training": True}
    names = ("x", "dy", "scale", "offset", "mean", "variance")
    example = drawn(0, (2, 4, 3, 5), "NCHW")
    function = DeviceFunction(
        lambda *values: by_rule(
            **dict(zip(names, values, strict=True)), data_format="NCHW", **attributes
        ),
        [example[name] for name in names],
        dynamic=(0, 1),
    )
    for size in (1, 2, 7):
        values = drawn(size, (size, 4, 3, 5), "NCHW")
        ours = function(*(values[name] for name in names))
        assert_close(ours, reference(values, "NCHW", **attributes))


def test_a_layers_gradient_through_keras_runs_as_keras_has_it():
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    layer = tf.keras.layers.LayerNormalization(epsilon=0.01)
    x = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    expected = np.asarray(layer(x))
    shaped = tf.constant(x.reshape(1, 6, 8, 1))
    y = RULES["FusedBatchNormV3"].apply(
        [shaped, tf.ones(6), tf.zeros(6), tf.zeros(0), tf.zeros(0)],
        {"epsilon": 0.01, "data_format": "NCHW", "is_training": True},
    )[0]
    np.testing.assert_allclose(np.reshape(y, (6, 8)), expected, rtol=1e-5, atol=1e-5)
