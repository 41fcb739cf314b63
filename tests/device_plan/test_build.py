"""Plans of many kinds pass their checks; what cannot become a plan is refused by name."""

import re

import psutil
import pytest


@pytest.fixture(scope="module")
def tasks():
    """The module with small tasks; it imports TensorFlow."""
    from tests.device_plan import tasks

    return tasks


@pytest.fixture(scope="module")
def build():
    from device_plan.compiler.build import build_plan

    return build_plan


def refusal(build, task) -> str:
    from device_plan.task_file import InvalidTask

    with pytest.raises(InvalidTask) as caught:
        build(task)
    return str(caught.value)


def optimizers(tasks):
    o, a = tasks.Optimizers, tasks.Algorithms
    return {
        "momentum": lambda m: a.build_weighted_fed_avg(
            m, o.build_sgdm(0.1, 0.9), o.build_sgdm(1.0, 0.9)
        ),
        "adam": lambda m: a.build_weighted_fed_avg(m, o.build_adam(0.01), o.build_adam(0.01)),
        "proximal": lambda m: a.build_weighted_fed_prox(
            m, 0.1, o.build_sgdm(0.1), o.build_sgdm(1.0)
        ),
        "unweighted": lambda m: a.build_unweighted_fed_avg(m, o.build_sgdm(0.1), o.build_sgdm(1.0)),
    }


@pytest.mark.parametrize("name", ["momentum", "adam", "proximal", "unweighted"])
def test_client_optimizers_and_terms_equal_tffs(name, tasks, build):
    built = build(tasks.task(process_fn=optimizers(tasks)[name]))
    assert built.passed, built.checks
    assert built.manifest.weight_tensor == "weight"
    # Two epochs of at most 50 examples, or every device the same.
    assert built.manifest.max_weight == (1 if name == "unweighted" else 100)


@pytest.mark.parametrize(
    "activations",
    [("elu", "selu", "softplus"), ("softsign", "sigmoid", "tanh", "gelu", "swish")],
    ids=" ".join,
)
def test_activations_equal_tffs(activations, tasks, build):
    assert build(tasks.task(tasks.model_fn(tasks.network(*activations)))).passed


def test_regression_with_its_metrics_equals_tffs(tasks, build):
    import tensorflow as tf

    model = tasks.model_fn(
        tasks.network("relu", outputs=1),
        loss=tf.keras.losses.MeanSquaredError,
        y=tf.TensorSpec([None, 1], tf.float32),
        metrics=lambda: [
            tf.keras.metrics.MeanAbsoluteError(),
            tf.keras.metrics.RootMeanSquaredError(),
        ],
    )
    assert build(tasks.task(model)).passed


def test_labels_as_distributions_equal_tffs(tasks, build):
    import tensorflow as tf

    model = tasks.model_fn(
        tasks.network("relu"),
        loss=lambda: tf.keras.losses.CategoricalCrossentropy(from_logits=True),
        y=tf.TensorSpec([None, tasks.CLASSES], tf.float32),
        metrics=lambda: [tf.keras.metrics.CategoricalAccuracy()],
    )
    assert build(tasks.task(model)).passed


def test_no_process_of_tff_survives_a_build(tasks, build):
    build(tasks.task())
    names = [child.name() for child in psutil.Process().children(recursive=True)]
    assert "worker_binary" not in names


def test_a_plan_whose_update_differs_from_tffs_is_not_built(tasks, build, monkeypatch):
    from tflite_models.lowering.rules import RULES, Rule

    wrong = Rule("ReluGrad", lambda dy, _y: dy, ())
    monkeypatch.setitem(RULES, "ReluGrad", wrong)
    built = build(tasks.task())
    assert built.data is None
    failed = [check for check in built.checks if not check.passed]
    assert failed
    assert all(check.name.startswith("equality") for check in failed)
    assert all(check.figures["median"] > 1e-5 for check in failed)


def test_a_wrong_metric_is_found_by_the_evaluation_checks_too(tasks, build, monkeypatch):
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES, Rule

    right = RULES["SparseSoftmaxCrossEntropyWithLogits"].function

    def wrong(logits, labels):
        loss, gradient = right(logits, labels)
        return loss + tf.constant(1e-3), gradient

    monkeypatch.setitem(RULES, "SparseSoftmaxCrossEntropyWithLogits", Rule("wrong", wrong, ()))
    built = build(tasks.task())
    failed = {check.name for check in built.checks if not check.passed}
    assert "equality: evaluation, one batch" in failed


def test_initial_weights_that_are_not_finite_are_refused(tasks, build):
    import tensorflow as tf

    def make():
        infinite = tf.keras.initializers.Constant(float("inf"))
        return tf.keras.Sequential(
            [
                tf.keras.layers.InputLayer((tasks.FEATURES,)),
                tf.keras.layers.Dense(tasks.CLASSES, bias_initializer=infinite, name="last"),
            ]
        )

    message = refusal(build, tasks.task(tasks.model_fn(make)))
    assert "the initial weight 'last/bias' has NaN or infinity" in message


def test_an_aggregator_that_does_not_sum_is_refused(tasks, build):
    task = tasks.task(
        process_fn=lambda m: tasks.Algorithms.build_unweighted_fed_avg(
            m,
            tasks.Optimizers.build_sgdm(0.1),
            tasks.Optimizers.build_sgdm(1.0),
            model_aggregator=tasks.LargestOfAll(),
        )
    )
    assert "by Maximum" in refusal(build, task)


def test_secure_aggregation_is_refused(tasks, build):
    import tensorflow_federated as tff

    task = tasks.task(
        process_fn=lambda m: tasks.Algorithms.build_weighted_fed_avg(
            m,
            tasks.Optimizers.build_sgdm(0.1),
            tasks.Optimizers.build_sgdm(1.0),
            model_aggregator=tff.learning.secure_aggregator(),
        )
    )
    assert "secure aggregation is not supported yet" in refusal(build, task)


def test_differential_privacy_is_refused(tasks, build):
    import tensorflow_federated as tff

    task = tasks.task(
        process_fn=lambda m: tasks.Algorithms.build_unweighted_fed_avg(
            m,
            tasks.Optimizers.build_sgdm(0.1),
            tasks.Optimizers.build_sgdm(1.0),
            model_aggregator=tff.learning.dp_aggregator(1.0, 100),
        )
    )
    assert "differential privacy" in refusal(build, task)


def test_a_layer_that_cannot_be_lowered_is_named_with_what_is_nearest(tasks, build):
    import tensorflow as tf

    layers = tf.keras.layers

    def make():
        return tf.keras.Sequential(
            [
                layers.InputLayer((tasks.FEATURES,)),
                layers.Reshape((tasks.FEATURES, 1, 1, 1)),
                layers.Conv3D(2, 1, name="the_odd_one"),
                layers.Flatten(),
                layers.Dense(tasks.CLASSES),
            ]
        )

    message = refusal(build, tasks.task(tasks.model_fn(make)))
    assert re.search("layer 'the_odd_one' uses Conv3D\\w*, .* nearest supported: Conv2D", message)


def test_dropout_asks_the_device_for_a_seed_and_equals_tffs_with_the_same_numbers(tasks, build):
    import tensorflow as tf

    layers = tf.keras.layers

    def make():
        return tf.keras.Sequential(
            [
                layers.InputLayer((tasks.FEATURES,)),
                layers.Dense(12),
                layers.Dropout(0.5),
                layers.Dense(tasks.CLASSES),
            ]
        )

    built = build(tasks.task(tasks.model_fn(make)))
    assert built.passed
    assert built.manifest.seeded
    assert "session/seed" in {spec.name for spec in built.manifest.signatures["begin"].inputs}


def test_a_batch_of_fixed_size_in_the_input_spec_is_refused(tasks, build):
    import tensorflow as tf

    model = tasks.model_fn(tasks.network("relu"), x=tf.TensorSpec([4, tasks.FEATURES], tf.float32))
    assert "the first dimension is the batch and must be None" in refusal(build, tasks.task(model))


def test_an_input_spec_that_the_model_does_not_accept_is_refused(tasks, build):
    import tensorflow as tf

    model = tasks.model_fn(tasks.network("relu"), x=tf.TensorSpec([None, 7], tf.float32))
    assert "does not accept the x of its input_spec" in refusal(build, tasks.task(model))


def test_a_feature_of_strings_is_refused(tasks, build):
    import tensorflow as tf

    model = tasks.model_fn(tasks.network("relu"), y=tf.TensorSpec([None], tf.string))
    assert "feature 'y' of input_spec has dtype string" in refusal(build, tasks.task(model))


def test_sample_examples_of_another_shape_are_refused(tasks, build):
    import numpy as np

    task = tasks.task(
        sample_fn=lambda rng, n: {
            "x": rng.random((n, 2), np.float32),
            "y": np.zeros(n, np.int64),
        }
    )
    assert "sample_fn must give feature 'x'" in refusal(build, task)


def test_several_steps_are_held_to_what_tff_itself_keeps_of_a_rounding(tasks, build):
    def chaotic(model):
        algorithms, optimizers = tasks.Algorithms, tasks.Optimizers
        return algorithms.build_weighted_fed_avg(
            model, optimizers.build_sgdm(200.0), optimizers.build_sgdm(1.0)
        )

    model = tasks.model_fn(tasks.network("tanh", "tanh", "tanh"))
    built = build(tasks.task(model, process_fn=chaotic, epochs=6))
    limits = {
        check.name: check.figures["limit"] for check in built.checks if "limit" in check.figures
    }
    assert limits["equality: one batch"] == limits["equality: one partial batch"] == 1e-5
    assert 1e-5 < limits["equality: 6 epochs"] <= 1e-2
    told = next(check.summary for check in built.checks if check.name == "equality: 6 epochs")
    assert "when its weights move by one rounding" in told
