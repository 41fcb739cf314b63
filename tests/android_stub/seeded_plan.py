"""A plan for tests whose `begin` takes a seed and whose `eval` also gives predictions.

Its update is the seed it was given. `data/seeded.plan` is its device part;
`python -m tests.android_stub.seeded_plan` writes it anew, for which alone
TensorFlow is needed.
"""

import hashlib
import tempfile
from pathlib import Path

import numpy as np

from device_plan.archive import FORMAT_VERSION, DevicePart
from device_plan.plan_pb2 import ExampleSelector, PlanManifest, Signature, TensorSpec

PLAN = Path(__file__).parent / "data" / "seeded.plan"
COLLECTION = "seeded"
BATCH_SIZE = 4


def checkpoint() -> dict[str, np.ndarray]:
    return {"scale": np.asarray(0.5, np.float32)}


def examples(count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=count).astype(np.float32)}


def manifest() -> PlanManifest:
    model = [TensorSpec(name="scale", dtype="float32")]
    data = [TensorSpec(name="x", dtype="float32", shape=[-1])]
    seed = [TensorSpec(name="session/seed", dtype="int32", shape=[3])]
    state = [TensorSpec(name="state/0", dtype="float32", shape=[3])]
    update = [TensorSpec(name="seed", dtype="float32", shape=[3])]
    metrics = [TensorSpec(name="sum", dtype="float32")]
    predictions = [TensorSpec(name="prediction", dtype="float32", shape=[-1])]
    return PlanManifest(
        format_version=FORMAT_VERSION,
        name="seeded",
        population="tests/seeded",
        checkpoint=model,
        examples=data,
        update=update,
        metrics=metrics,
        predictions=predictions,
        seeded=True,
        signatures={
            "begin": Signature(inputs=[*model, *seed], outputs=state),
            "batch": Signature(inputs=[*state, *data], outputs=state),
            "finish": Signature(inputs=[*model, *state], outputs=update),
            "eval": Signature(inputs=[*model, *data], outputs=[*metrics, *predictions]),
        },
        batch_size=BATCH_SIZE,
        epochs=1,
        example_selector=ExampleSelector(collection=COLLECTION, min_examples=1, max_examples=100),
    )


def build() -> bytes:
    import tensorflow as tf

    class Seeded(tf.Module):
        @tf.function
        def begin(self, scale, seed):
            return {"state/0": tf.cast(seed, tf.float32) + 0.0 * scale}

        @tf.function
        def batch(self, state, x):
            return {"state/0": state + 0.0 * tf.reduce_sum(x)}

        @tf.function
        def finish(self, scale, state):
            return {"seed": state + 0.0 * scale}

        @tf.function
        def eval(self, scale, x):
            return {"sum": tf.reduce_sum(scale * x), "prediction": scale * x}

    module = Seeded()
    described = manifest()
    signatures = {
        name: getattr(module, name).get_concrete_function(
            *(
                tf.TensorSpec([None if side < 0 else side for side in s.shape], s.dtype, s.name)
                for s in signature.inputs
            )
        )
        for name, signature in described.signatures.items()
    }
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            directory, signature_keys=sorted(signatures)
        )
        graph = converter.convert()
    described.graph_sha256 = hashlib.sha256(graph).hexdigest()
    return DevicePart(manifest=described, graph=graph).to_bytes()


if __name__ == "__main__":
    PLAN.write_bytes(build())
