"""Executes a device graph as a device would, on tflite-runtime."""

from collections.abc import Iterable, Mapping

import numpy as np
import tflite_runtime
from tflite_runtime.interpreter import Interpreter

from device_plan.plan_pb2 import PlanManifest

#: The runtime that the checks ran on.
RUNTIME = f"tflite-runtime {tflite_runtime.__version__}"

Arrays = Mapping[str, np.ndarray]


class DeviceRuntime:
    """A plan's graph, by signature.

    Raises:
        ValueError: the graph does not load.
    """

    def __init__(self, manifest: PlanManifest, graph: bytes) -> None:
        self._interpreter = Interpreter(model_content=graph, num_threads=1)
        self._metrics = [spec.name for spec in manifest.metrics]
        self._inputs = {
            name: [spec.name for spec in signature.inputs]
            for name, signature in manifest.signatures.items()
        }

    def train(self, checkpoint: Arrays, batches: Iterable[Arrays]) -> dict[str, np.ndarray]:
        """A training session's update."""
        state = self._call("begin", checkpoint)
        for batch in batches:
            state = self._call("batch", checkpoint, state, batch)
        return self._call("finish", checkpoint, state)

    def evaluate(self, checkpoint: Arrays, batches: Iterable[Arrays]) -> dict[str, np.ndarray]:
        """An evaluation session's metrics: the sum over its batches."""
        total: dict[str, np.ndarray] = {}
        for batch in batches:
            outputs = self._call("eval", checkpoint, batch)
            for name in self._metrics:
                total[name] = total[name] + outputs[name] if name in total else outputs[name]
        return total

    def _call(self, signature: str, *sources: Arrays) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        for source in sources:
            values.update(source)
        runner = self._interpreter.get_signature_runner(signature)
        outputs = runner(**{name: values[name] for name in self._inputs[signature]})
        return dict(outputs)
