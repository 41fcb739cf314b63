"""(e) Adding an update to the sum, against BLAS saxpy on one array of the same size."""

import numpy as np
from scipy.linalg.blas import saxpy

from benchmarks.measurement import Measurement, alternate
from device_plan.checkpoint import encode
from device_plan.plan_pb2 import PlanManifest, TensorSpec
from server.aggregation.accumulator import Accumulator
from server.aggregation.admission import Admission

#: Weights of the model, as many as the next-word model of Hard et al. 2018.
PARAMETERS = 1_500_000


def measure() -> list[Measurement]:
    rng = np.random.default_rng(0)
    # Layers of different sizes, as a model has them.
    sizes = [1, 10, 640, 64_000, PARAMETERS - 64_651]
    specs = [TensorSpec(name=f"delta/{i}", dtype="float32", shape=[n]) for i, n in enumerate(sizes)]
    specs.append(TensorSpec(name="weight", dtype="float32"))
    specs.append(TensorSpec(name="num_examples", dtype="int64"))
    admission = Admission(
        manifest=PlanManifest(update=specs, weight_tensor="weight", max_weight=1e6), training=True
    )
    tensors = {s.name: rng.normal(size=s.shape).astype(np.float32) for s in specs[:-2]}
    data = encode({**tensors, "weight": np.float32(1), "num_examples": np.int64(1)})
    accumulator = Accumulator(layout=admission.layout)
    views = admission.admit(data)
    one = rng.normal(size=PARAMETERS).astype(np.float32)
    total = np.zeros(PARAMETERS, np.float32)

    added, blas = alternate(lambda: accumulator.add(views), lambda: saxpy(one, total), runs=400)
    checked, _ = alternate(lambda: admission.admit(data), lambda: saxpy(one, total), runs=200)
    speed = 4 * PARAMETERS / 1e9
    return [
        Measurement(
            what="sum kernel, 1.5 M float32",
            value=speed / added,
            baseline=speed / blas,
            baseline_name="BLAS saxpy, one array",
            unit="GB/s",
            target=">= 0.9x",
            met=blas / added >= 0.9,
        ),
        Measurement(
            what="checking an update of 1.5 M (names, shapes, finite, ranges)",
            value=1e3 * checked,
            baseline=1e3 * blas,
            baseline_name="BLAS saxpy, one array",
            unit="ms",
            target="told",
            met=True,
        ),
    ]
