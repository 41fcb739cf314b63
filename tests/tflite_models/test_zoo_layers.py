"""The zoo's own layers compute what their docstrings say."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_models import next_word


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


def sigma(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def steps(x: np.ndarray, weights: list[np.ndarray], units: int) -> np.ndarray:
    """The cell's equations in float64 numpy, float64 [batch, time, projection]."""
    kernel, recurrent, bias, projection = (weight.astype(np.float64) for weight in weights)
    r, c = np.zeros((len(x), projection.shape[1])), np.zeros((len(x), units))
    outputs = []
    for t in range(x.shape[1]):
        gates = x[:, t] @ kernel + r @ recurrent + bias
        f, g, o = gates[:, :units], gates[:, units : 2 * units], gates[:, 2 * units :]
        c = sigma(f) * c + (1 - sigma(f)) * np.tanh(g)
        r = (sigma(o) * np.tanh(c)) @ projection
        outputs.append(r)
    return np.stack(outputs, axis=1)


@settings(max_examples=8)
@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(1, 5),
    st.booleans(),
)
def test_the_cell_keeps_what_it_does_not_replace(
    batch: int, time: int, inputs: int, units: int, projection: int, unroll: bool
) -> None:
    import tensorflow as tf

    from tflite_models.layers.coupled_input_forget import CoupledInputForgetCell

    rng = np.random.default_rng(batch + 10 * time + 100 * units)
    layer = tf.keras.layers.RNN(
        CoupledInputForgetCell(units, projection), return_sequences=True, unroll=unroll
    )
    x = rng.normal(size=(batch, time, inputs)).astype(np.float32)
    layer.build(x.shape)
    weights = [rng.normal(size=weight.shape) for weight in layer.get_weights()]
    layer.set_weights(weights)
    expected = steps(x.astype(np.float64), layer.get_weights(), units)
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_new_cell_remembers() -> None:
    from tflite_models.layers.coupled_input_forget import CoupledInputForgetCell

    cell = CoupledInputForgetCell(3, 2)
    cell.build((None, 4))
    np.testing.assert_array_equal(cell.bias.numpy(), [1, 1, 1, 0, 0, 0, 0, 0, 0])


def test_a_cell_without_units_is_refused() -> None:
    from tflite_models.layers.coupled_input_forget import CoupledInputForgetCell

    with pytest.raises(ValueError, match="at least 1, not 0 and 2"):
        CoupledInputForgetCell(0, 2)


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("coupled_input_forget", "CoupledInputForgetCell", {"units": 3, "projection": 2}),
        ("tied_embedding", "TiedEmbedding", {"vocabulary": 7, "width": 2}),
        ("masked", "MaskedCrossentropy", {"padding": 3}),
        ("masked", "MaskedAccuracy", {"masked": (1, 2)}),
    ],
)
def test_a_layer_is_made_again_from_its_configuration(module, name, arguments) -> None:
    kind = getattr(importlib.import_module(f"tflite_models.layers.{module}"), name)
    again = kind.from_config(kind(**arguments).get_config())
    assert {key: getattr(again, key) for key in arguments} == arguments


def test_an_embedding_scores_with_the_rows_it_looks_up(tf) -> None:
    from tflite_models.layers.tied_embedding import TiedEmbedding

    layer = TiedEmbedding(5, 3)
    rows = layer(tf.constant([[0, 4], [2, 2]])).numpy()
    matrix = layer.embeddings.numpy()
    np.testing.assert_array_equal(rows, matrix[[[0, 4], [2, 2]]])
    np.testing.assert_allclose(layer(rows, score=True), rows @ matrix.T, rtol=1e-5)
    assert len(layer.trainable_weights) == 1


def test_unrolled_and_looped_next_word_models_compute_the_same() -> None:
    sizes = {"vocabulary": 30, "embedding": 4, "units": 5, "words": 6}
    looped, unrolled = (next_word.model_fn(unroll=unroll, **sizes) for unroll in (False, True))
    for ours, theirs in zip(unrolled.trainable_variables, looped.trainable_variables, strict=True):
        ours.assign(theirs)
    words = np.random.default_rng(0).integers(0, 30, (3, 6)).astype(np.int32)
    np.testing.assert_allclose(
        unrolled.predict_on_batch(words), looped.predict_on_batch(words), atol=1e-6
    )


LABELS = np.array([[3, 1, 0, 0], [2, 4, 4, 0], [0, 0, 0, 0]], np.int32)
LOGITS = np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32)


def test_padding_does_not_count_in_the_loss() -> None:
    from scipy.special import log_softmax

    from tflite_models.layers.masked import MaskedCrossentropy

    chosen = np.take_along_axis(log_softmax(LOGITS, axis=-1), LABELS[..., None], -1)[..., 0]
    expected = -chosen[LABELS != 0].mean()
    assert MaskedCrossentropy()(LABELS, LOGITS).numpy() == pytest.approx(expected, rel=1e-5)


def test_the_masked_loss_is_what_keras_computes_under_an_embeddings_mask(tf) -> None:
    from tflite_models.layers.masked import MaskedCrossentropy

    logits = tf.constant(LOGITS)
    logits._keras_mask = tf.constant(LABELS != 0)
    keras = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = keras(LABELS, logits).numpy()
    assert MaskedCrossentropy()(LABELS, LOGITS).numpy() == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_padding_alone_has_no_loss_and_no_gradient(tf) -> None:
    from tflite_models.layers.masked import MaskedCrossentropy

    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = MaskedCrossentropy()(np.zeros_like(LABELS), logits)
    assert loss.numpy() == 0.0
    np.testing.assert_array_equal(tape.gradient(loss, logits), np.zeros_like(LOGITS))


def test_masked_labels_do_not_count_in_the_accuracy() -> None:
    from tflite_models.layers.masked import MaskedAccuracy

    metric = MaskedAccuracy((0, 4))
    metric.update_state(LABELS, LOGITS)
    counted = (LABELS != 0) & (LABELS != 4)
    expected = (LOGITS.argmax(-1) == LABELS)[counted].mean()
    assert metric.result().numpy() == pytest.approx(expected)
