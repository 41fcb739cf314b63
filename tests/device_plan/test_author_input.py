"""What an author can get wrong is one clear error at build time: what, where, and what to do."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from device_plan.commands import plan

#: Before each task: small() makes one, and what a case sets is its argument.
PREAMBLE = """
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from collections import OrderedDict
from device_plan.limits import ResourceLimits
from device_plan.predicates import Predicate
from tests.device_plan import proxies
from tests.device_plan.tasks import FEATURES, X, Y, fed_avg, model_fn, network
from tests.device_plan.tasks import task as small

layers = tf.keras.layers
crossentropy = tf.keras.losses.SparseCategoricalCrossentropy


def of_keras(model, loss=crossentropy(from_logits=True), y=Y):
    return tff.learning.models.from_keras_model(
        model, loss=loss, input_spec=OrderedDict(x=X, y=y)
    )

"""

LAYER = """
def make():
    return tf.keras.Sequential(
        [
            layers.InputLayer((FEATURES,)),
            layers.Lambda(lambda x: tf.math.real(tf.signal.fft(tf.cast(x, tf.complex64))),
                          name="spectrum"),
            layers.Dense(4),
        ]
    )

task = small(model_fn(make))
"""

METRIC = """
class Significance(tf.keras.metrics.Mean):
    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(tf.math.betainc(tf.sigmoid(y_pred), 0.5, 0.5))

task = small(
    model_fn(network("relu"), metrics=lambda: [Significance(name="p_value")])
)
"""

LOSS = """
task = small(model_fn(network(), loss=lambda: crossentropy(from_logits=True, reduction="none")))
"""

TWO_OUTPUTS = """
def two():
    x = layers.Input((FEATURES,))
    return of_keras(
        tf.keras.Model(x, [layers.Dense(4)(x), layers.Dense(2)(x)]),
        loss=[crossentropy(from_logits=True)] * 2,
        y=[Y, Y],
    )

task = small(two)
"""

SAME_LAYERS = """
shared = network("relu")()
task = small(lambda: of_keras(shared))
"""

SAME_MODEL = """
import functools
task = small(functools.cache(model_fn(network("relu"))))
"""

NO_MODEL = """
task = small(lambda: network("relu")())
"""

INPUT_SPEC = """
task = small(model_fn(network("relu"), x=tf.TensorSpec([None, 7], tf.float32)))
"""

LABEL_SPEC = """
task = small(
    model_fn(
        network("relu"),
        loss=tf.keras.losses.CategoricalCrossentropy,
        y=tf.TensorSpec([None, 3], tf.float32),
    )
)
"""

SAMPLE = """
def sample_fn(rng, count):
    return {"x": rng.random((count, FEATURES), np.float32), "y": %s}

task = small(sample_fn=sample_fn)
"""

PREDICATE = """
task = small(
    proxy_fn=%s,
    predicates=(Predicate(metric="%s", at_least=0.8, after_rounds=20),),
)
"""

MIME = """
def process(model_fn):
    return tff.learning.algorithms.build_weighted_mime_lite(
        model_fn, tff.learning.optimizers.build_sgdm(0.1, 0.9)
    )

task = small(process_fn=process)
"""

CASES = {
    "a layer": (
        LAYER,
        ["layer 'spectrum' uses FFT, which has no form in TFLite builtins", "compute"],
    ),
    "a metric": (
        METRIC,
        ["the metric 'p_value' uses Betainc, which has no form in TFLite builtins"],
    ),
    "a loss that returns a vector": (
        LOSS,
        ["the loss of a batch has the shape (None,); it must be one number", "tf.reduce_mean"],
    ),
    "an algorithm": (MIME, ["reads its examples twice", "MimeLite", "use FedAvg"]),
    "two outputs": (TWO_OUTPUTS, ["the model has 2 outputs", "concatenate them"]),
    "the same layers": (SAME_LAYERS, ["same weights", "make the layers inside model_fn"]),
    "the same model": (SAME_MODEL, ["model_fn returns the same model"]),
    "no model of tff": (NO_MODEL, ["model_fn must return a tff.learning.models.VariableModel"]),
    "an input spec": (INPUT_SPEC, ["the model does not accept the x of its input_spec"]),
    "the labels' spec": (
        LABEL_SPEC,
        ["the loss or a metric does not accept the model's output and the y of its input_spec"],
    ),
    "a label out of range": (
        SAMPLE % "np.full(count, 4, np.int64)",
        ["sample_fn gives the label 4 in feature 'y'", "labels are from 0 to 3"],
    ),
    "labels of a dtype": (
        SAMPLE % "np.zeros(count, np.int32)",
        ["sample_fn must give feature 'y' as int64 [1], not int32 [1]"],
    ),
    "labels of a shape": (
        SAMPLE % "np.zeros((count, 2), np.int64)",
        ["sample_fn must give feature 'y' as int64 [1], not int64 [1, 2]"],
    ),
    "samples that are lists": (
        SAMPLE % "[0] * count",
        ["sample_fn must give feature 'y' as int64 [1]"],
    ),
    "a sample_fn that fails": (SAMPLE % "1 / 0", ["sample_fn fails: ZeroDivisionError"]),
    "a predicate on an unknown metric": (
        PREDICATE % ("proxies.data", "acuracy"),
        ["'acuracy' at least 0.8 names no metric of the model; there are: loss, num_examples"],
    ),
    "a predicate without proxy data": (
        PREDICATE % ("None", "loss"),
        ["'loss' at least 0.8 needs proxy data", "give the task a proxy_fn", "num_examples"],
    ),
    "a predicate that is none": (
        "task = small(predicates=[('loss', 1)])",
        ["predicates must be a tuple of device_plan.predicates.Predicate", "line"],
    ),
    "limits that are none": (
        "task = small(limits={'rss_bytes': 1})",
        ["limits must be device_plan.limits.ResourceLimits"],
    ),
    "a reviewer that is none": ("task = small(reviewer=7)", ["reviewer must be a text", "line"]),
    "syntax": ("task = small(", ["task.py", "SyntaxError", "line"]),
}


def build(directory: Path, text: str) -> Result:
    path = directory / "task.py"
    path.write_text(PREAMBLE + text)
    return CliRunner().invoke(plan, ["build", str(path), "-o", str(directory / "out.plan")])


@pytest.mark.parametrize("mistake", CASES)
def test_a_mistake_is_one_clear_error(mistake: str, tmp_path: Path) -> None:
    text, told = CASES[mistake]
    result = build(tmp_path, text)
    assert result.exit_code == 2, result.output
    for part in told:
        assert part in result.output
    assert result.output.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.output
    assert not (tmp_path / "out.plan").exists()
