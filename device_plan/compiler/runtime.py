"""Executes device graphs as a device would, on this environment's own TFLite runtime.

In a process of their own, driven as the runtimes of the matrix are: a graph that crashes
or hangs the runtime fails, and the build goes on to say so.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import tflite_runtime

from device_plan.matrix.case import Cases
from device_plan.matrix.environment import Environment, Environments
from device_plan.matrix.matrix import run
from device_plan.matrix.result import Measurement
from device_plan.matrix.table import RuntimeSpec

#: The runtime that the checks ran on.
RUNTIME = f"tflite-runtime {tflite_runtime.__version__}"

_HERE = RuntimeSpec(
    name=RUNTIME,
    family="tflite",
    python=f"{sys.version_info.major}.{sys.version_info.minor}",
    requirements=(RUNTIME.replace(" ", "=="),),
    interpreter="tflite_runtime.interpreter",
    install="light",
)


def execute(graphs: Mapping[str, bytes], cases: Cases) -> dict[str, Measurement]:
    """What each graph did on all cases, by its name, with the runtime's default delegates.

    Args:
        graphs: TFLite graphs of one plan by variant.
        cases: At least one; training cases among them for a step to be timed.
    """
    results = run(graphs, cases, [_HERE], _Here(), delegates=["default"])
    return {result.variant: result.measured["default"] for result in results}


class _Here(Environments):
    """The environment that is running, for every runtime."""

    def installed(self, runtime: RuntimeSpec) -> bool:  # noqa: ARG002
        return True

    def get(self, runtime: RuntimeSpec) -> Environment:  # noqa: ARG002
        return Environment(Path(sys.executable))
