"""The models of the zoo are what their pages say, and learn what their data can teach."""

import functools

import numpy as np
import pytest

from tests.tflite_models.zoo import MODELS, batch, train
from tflite_models import activity, emnist, next_word, ranking, shakespeare
from tflite_models.data.federated_data import pool


@pytest.fixture(scope="module")
def tff():
    import tensorflow_federated

    return tensorflow_federated


named = pytest.mark.parametrize("name", MODELS)


def parameters(model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.parametrize(
    ("make", "published", "stated"),
    [
        # McMahan et al. 2017, section 3: 1,663,370.
        (emnist.model_fn, 1_663_370, emnist.PARAMETERS[10]),
        (functools.partial(emnist.model_fn, 62), 1_663_370 + 52 * 513, emnist.PARAMETERS[62]),
        # Hard et al. 2018: embedding, three gates of 670 units over two inputs of 96, projection.
        (
            next_word.model_fn,
            10_000 * 96 + 3 * 670 * (96 + 96 + 1) + 670 * 96,
            next_word.PARAMETERS,
        ),
        # Keras' formula for an LSTM: 4 u (u + i + 1).
        (
            shakespeare.model_fn,
            90 * 8 + 4 * 256 * (256 + 8 + 1) + 4 * 256 * (256 + 256 + 1) + 257 * 90,
            shakespeare.PARAMETERS,
        ),
        (ranking.logistic_model_fn, 1000 + 8 + 1, ranking.LOGISTIC_PARAMETERS),
        (
            ranking.deep_model_fn,
            1000 * 8 + 17 * 32 + 33 * 16 + 17,
            ranking.DEEP_PARAMETERS,
        ),
        (
            activity.model_fn,
            (3 * 5 + 1) * 32 + (32 * 5 + 1) * 64 + (64 * 5 + 1) * 64 + 65 * 6,
            activity.PARAMETERS,
        ),
    ],
    ids=["emnist", "emnist 62", "next word", "shakespeare", "logistic", "deep", "activity"],
)
def test_a_model_has_the_number_of_weights_that_its_page_states(make, published, stated) -> None:
    assert parameters(make()) == published == stated


def test_the_next_word_model_has_about_the_published_1_4_million_weights() -> None:
    assert round(next_word.PARAMETERS / 1e6, 1) == 1.4


def test_the_emnist_network_has_the_weights_of_tffs_baseline() -> None:
    from tensorflow_federated.python.simulation.baselines.emnist import emnist_models

    baseline = emnist_models.create_original_fedavg_cnn_model(only_digits=False)
    ours = emnist.model_fn(62).trainable_variables
    assert [tuple(v.shape) for v in ours] == [tuple(v.shape) for v in baseline.trainable_variables]


def test_the_shakespeare_network_has_the_weights_and_characters_of_tffs_baseline() -> None:
    from tensorflow_federated.python.simulation.baselines.shakespeare import (
        char_prediction_models,
        char_prediction_preprocessing,
    )

    baseline = char_prediction_models.create_recurrent_model(
        shakespeare.VOCABULARY, shakespeare.LENGTH
    )
    ours = shakespeare.model_fn().trainable_variables
    assert [tuple(v.shape) for v in ours] == [tuple(v.shape) for v in baseline.trainable_variables]
    assert set(shakespeare.CHARACTERS) == set(char_prediction_preprocessing.CHAR_VOCAB)


@named
def test_tff_compiles_federated_averaging_of_a_model(tff, name: str) -> None:
    model = MODELS[name].make()
    process = tff.learning.algorithms.build_weighted_fed_avg(
        MODELS[name].make,
        tff.learning.optimizers.build_sgdm(0.1),
        tff.learning.optimizers.build_sgdm(1.0),
    )
    form = tff.backends.mapreduce.get_map_reduce_form_for_computation(process.next)
    results = [
        tuple(type_.shape) for type_ in tff.structure.flatten(form.work.type_signature.result)
    ]
    shapes = [tuple(variable.shape) for variable in model.trainable_variables]
    # Beside the update there are scalars: its weight, and metrics.
    assert [shape for shape in results if shape] == shapes


@pytest.mark.parametrize(
    ("name", "steps", "learning_rate"),
    [("digits", 60, 0.005), ("emnist", 25, 0.002), ("activity", 60, 0.005)],
)
def test_a_classifier_beats_the_most_frequent_class_by_far(
    name: str, steps: int, learning_rate: float
) -> None:
    data = MODELS[name].data()
    labels = np.concatenate([features["y"] for features in data.held_out.values()])
    chance = np.bincount(labels).max() / len(labels)
    metrics = train(
        MODELS[name].make(), data, steps=steps, batch_size=32, learning_rate=learning_rate
    )
    assert metrics["accuracy"] > chance + 0.3


@pytest.mark.parametrize("name", ["ranking, deep", "ranking, logistic"])
def test_a_ranking_puts_tapped_items_above_others(name: str) -> None:
    from sklearn.metrics import roc_auc_score

    model, data = MODELS[name].make(), MODELS[name].data()
    train(model, data, steps=150, batch_size=64, learning_rate=0.01)
    held_out = batch(pool(data.held_out.values()))
    scores = model.predict_on_batch(held_out["x"], training=False).numpy()
    # 0.5 is chance.
    assert roc_auc_score(held_out["y"], scores) > 0.7


def test_a_language_model_of_words_beats_the_most_frequent_word() -> None:
    # All 20 words, but fewer of them to choose from, and fewer units.
    data = MODELS["next word"].data()
    labels = np.concatenate([features["y"].ravel() for features in data.held_out.values()])
    words = labels[labels > next_word.END]
    most_frequent = np.bincount(words).max() / len(words)
    model = next_word.model_fn(vocabulary=150, units=64, embedding=24)
    metrics = train(model, data, steps=80, batch_size=32, learning_rate=0.02)
    assert metrics["accuracy"] > 3 * most_frequent


def test_a_language_model_of_characters_beats_their_frequencies() -> None:
    # All 80 characters, but fewer units.
    data = MODELS["shakespeare"].data()
    training = np.concatenate([features["y"].ravel() for features in data.clients.values()])
    held_out = np.concatenate([features["y"].ravel() for features in data.held_out.values()])
    counts = np.bincount(training[training > 0], minlength=shakespeare.VOCABULARY) + 0.1
    log_share = np.log(counts / counts.sum())
    entropy = -log_share[held_out[held_out > 0]].mean()
    model = shakespeare.model_fn(units=48)
    metrics = train(model, data, steps=150, batch_size=8, learning_rate=0.02)
    assert metrics["loss"] < entropy - 0.1
