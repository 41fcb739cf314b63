"""Runtimes that need no network: this environment's own, and a fake one."""

import sys
import venv
from pathlib import Path

import numpy as np

from device_plan.matrix.environment import Environment, Environments
from device_plan.matrix.table import RuntimeSpec

HERE = RuntimeSpec(
    name="tflite-runtime 2.14.0",
    family="tflite",
    python="3.11",
    requirements=("tflite-runtime==2.14.0",),
    interpreter="tflite_runtime.interpreter",
    install="light",
)

FAKE = RuntimeSpec(
    name="tflite-runtime 9.0",
    family="tflite",
    python="3.11",
    requirements=("fake-runtime",),
    interpreter="fake_runtime",
    install="light",
)


class Ready(Environments):
    """An environment that is there already."""

    def __init__(self, python: Path) -> None:
        super().__init__()
        self._python = python

    def installed(self, runtime: RuntimeSpec) -> bool:  # noqa: ARG002
        return True

    def get(self, runtime: RuntimeSpec) -> Environment:  # noqa: ARG002
        return Environment(self._python)


def here() -> Environments:
    return Ready(Path(sys.executable))


def with_fake(directory: Path) -> Environments:
    """An environment with numpy and `fake_runtime`."""
    venv.create(directory, symlinks=True)
    (packages,) = directory.glob("lib/python3*/site-packages")
    own = Path(__file__).with_name("fake_runtime.py")
    (packages / own.name).write_text(own.read_text())
    (packages / "numpy.pth").write_text(f"{Path(np.__file__).parent.parent}\n")
    return Ready(directory / "bin" / "python")
