"""A small real plan for tests: least squares by gradient descent on three features.

`data/linear.plan` is its device part. `python -m tests.android_stub.linear_plan`
writes it anew (TensorFlow is needed for that alone); `train` and `evaluate`
say in numpy what the plan computes.
"""

from pathlib import Path

import numpy as np

from device_plan.archive import FORMAT_VERSION, DevicePart
from device_plan.plan_pb2 import ExampleSelector, PlanManifest, Signature, TensorSpec

PLAN = Path(__file__).parent / "data" / "linear.plan"
FEATURES = 3
RATE = 0.1
BATCH_SIZE = 4
EPOCHS = 2
COLLECTION = "linear"


def checkpoint(value: float = 0.5) -> dict[str, np.ndarray]:
    return {
        "weights": np.full(FEATURES, value, np.float32),
        "bias": np.asarray(value, np.float32),
    }


def examples(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, FEATURES)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5]) + 0.25).astype(np.float32)
    return {"x": x, "y": y}


def train(start: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The update in float64: weighted differences to the checkpoint, and the weight."""
    weights = start["weights"].astype(np.float64)
    bias = float(start["bias"])
    count = len(data["y"])
    for _ in range(EPOCHS):
        for first in range(0, count, BATCH_SIZE):
            x = data["x"][first : first + BATCH_SIZE].astype(np.float64)
            error = x @ weights + bias - data["y"][first : first + BATCH_SIZE]
            weights = weights - RATE * (x.T @ error) / len(x)
            bias = bias - RATE * error.mean()
    used = float(count * EPOCHS)
    return {
        "weights_delta": used * (weights - start["weights"]),
        "bias_delta": np.asarray(used * (bias - float(start["bias"]))),
        "weight": np.asarray(used),
    }


def evaluate(start: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    error = data["x"].astype(np.float64) @ start["weights"] + start["bias"] - data["y"]
    return {"squared_error": np.sum(error**2), "count": np.asarray(float(len(error)))}


def _spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape)


def manifest() -> PlanManifest:
    model = [_spec("weights", FEATURES), _spec("bias")]
    state = [_spec("state/0", FEATURES), _spec("state/1"), _spec("state/2")]
    data = [_spec("x", -1, FEATURES), _spec("y", -1)]
    update = [_spec("weights_delta", FEATURES), _spec("bias_delta"), _spec("weight")]
    metrics = [_spec("squared_error"), _spec("count")]
    return PlanManifest(
        format_version=FORMAT_VERSION,
        name="linear",
        population="tests/linear",
        checkpoint=model,
        examples=data,
        update=update,
        metrics=metrics,
        signatures={
            "begin": Signature(inputs=model, outputs=state),
            "batch": Signature(inputs=[*state, *data], outputs=state),
            "finish": Signature(inputs=[*model, *state], outputs=update),
            "eval": Signature(inputs=[*model, *data], outputs=metrics),
        },
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        example_selector=ExampleSelector(collection=COLLECTION, min_examples=3, max_examples=1000),
        weight_tensor="weight",
        max_weight=1e6,
        min_runtime_version="2.5.0",
    )


def build() -> bytes:
    import hashlib

    import tensorflow as tf

    w = tf.TensorSpec([FEATURES], tf.float32)
    s = tf.TensorSpec([], tf.float32)
    x = tf.TensorSpec([None, FEATURES], tf.float32)
    y = tf.TensorSpec([None], tf.float32)

    class Linear(tf.Module):
        @tf.function
        def begin(self, weights, bias):
            return {"state/0": weights + 0.0, "state/1": bias + 0.0, "state/2": bias * 0.0}

        @tf.function
        def batch(self, weights, bias, used, x, y):
            error = tf.linalg.matvec(x, weights) + bias - y
            count = tf.cast(tf.shape(y)[0], tf.float32)
            gradient = tf.reduce_sum(x * error[:, None], axis=0) / count
            return {
                "state/0": weights - RATE * gradient,
                "state/1": bias - RATE * tf.reduce_sum(error) / count,
                "state/2": used + count,
            }

        @tf.function
        def finish(self, weights, bias, last_weights, last_bias, used):
            return {
                "weights_delta": used * (last_weights - weights),
                "bias_delta": used * (last_bias - bias),
                "weight": used + 0.0,
            }

        @tf.function
        def eval(self, weights, bias, x, y):
            error = tf.linalg.matvec(x, weights) + bias - y
            return {
                "squared_error": tf.reduce_sum(error * error),
                "count": tf.cast(tf.shape(y)[0], tf.float32),
            }

    module = Linear()

    specs = {"weights": w, "bias": s, "state/0": w, "state/1": s, "state/2": s, "x": x, "y": y}
    signatures = {
        name: getattr(module, name).get_concrete_function(
            *(tf.TensorSpec(specs[i.name].shape, tf.float32, i.name) for i in signature.inputs)
        )
        for name, signature in manifest().signatures.items()
    }
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            directory, signature_keys=sorted(signatures)
        )
        graph = converter.convert()
    described = manifest()
    described.graph_sha256 = hashlib.sha256(graph).hexdigest()
    return DevicePart(manifest=described, graph=graph).to_bytes()


if __name__ == "__main__":
    PLAN.parent.mkdir(exist_ok=True)
    PLAN.write_bytes(build())
