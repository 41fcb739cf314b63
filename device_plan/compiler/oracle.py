"""What TFF itself computes: the reference for the device graph, independent of the lowering."""

import atexit
import contextlib
import copy
import gc
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import tensorflow as tf
import tensorflow_federated as tff

from device_plan.compiler.block import arrays
from device_plan.compiler.process import Form, reset_seeds
from device_plan.compiler.replay import Replay, draws_random_numbers

#: The program that TFF's C++ execution context starts, and does not end.
_WORKER = "worker_binary"


class Oracle:
    """TFF's execution of a form's client work.

    Args:
        form: Of the training or the evaluation process.
        state: The server state, in the struct's order.
    """

    def __init__(self, form: Form, state: Sequence[np.ndarray]) -> None:
        self._form = form
        self._replay = Replay(form.work) if draws_random_numbers(form.work) else None
        self._checkpoint = form.prepare.computation(_nested(form.prepare.type.parameter, state))

    def work(self, dataset: Any, seed: Sequence[int] | None = None) -> list[np.ndarray]:
        """The client's summands after `dataset`, in the order of the form's `zero`.

        Args:
            seed: Draws the random numbers that a device draws from it, if there are any;
                three integers from 1 to 30000. Without it they are TensorFlow's own.
        """
        if self._replay is not None and seed is not None:
            work = self._form.work
            parameters = [leaf.tensor for leaf in work.inputs if not leaf.is_dataset]
            values = dict(zip(parameters, self.checkpoint(), strict=True))
            results = self._replay.run(dataset, values, seed)
            summed = [leaf.path[0] == "0" for leaf in work.outputs]
            return [value for value, kept in zip(results, summed, strict=True) if kept]
        result = self._form.work.computation(dataset, self._checkpoint)
        return arrays(self._form.work.type.result[0], result[0])

    def nudged(self, draw: int) -> "Oracle":
        """The same with every weight moved by one rounding of float32, up or down at random."""
        rng = np.random.default_rng(draw)
        moved = [
            (value * (1 + 2.0**-23 * rng.choice((-1, 1), value.shape))).astype(value.dtype)
            if value.dtype.kind == "f"
            else value
            for value in self.checkpoint()
        ]
        oracle = copy.copy(self)
        oracle._checkpoint = _nested(self._form.prepare.type.result, moved)
        return oracle

    def checkpoint(self) -> list[np.ndarray]:
        """What devices download, in prepare's order."""
        return arrays(self._form.prepare.type.result, self._checkpoint)


def initial_state(form: Form, seed: int) -> list[np.ndarray]:
    """The server state before round 1, in the struct's order."""
    reset_seeds(seed)
    return arrays(form.prepare.type.parameter, form.initialize())


@contextlib.contextmanager
def tff_runtime() -> Iterator[None]:
    """A TFF runtime of its own, whose worker process ends with it."""
    before = _workers()
    # An earlier context remembers a worker that may be gone.
    tff.backends.native.set_sync_local_cpp_execution_context()
    try:
        yield
    finally:
        started = [worker for worker in _workers() if worker not in before]
        for worker in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        # TFF's own object interrupts and reaps its worker when it is collected, which
        # would wait for ever where interrupts are ignored, and fail if it were reaped.
        tff.backends.native.set_sync_local_cpp_execution_context()
        gc.collect()
        psutil.wait_procs(started, timeout=10)


def start_worker() -> None:
    """Starts TFF's worker now, with no hold on this process's standard output.

    A pipe that reads it would otherwise not see its end before the worker's.
    """
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        tff.tensorflow.computation(lambda: tf.constant(0))()


class _Ended(tff.framework.SyncContext):  # type: ignore[misc]
    """What is left of TFF when the interpreter ends."""

    def invoke(self, comp: Any, arg: Any) -> Any:  # noqa: ARG002
        raise RuntimeError("TFF has ended")


@atexit.register
def _end() -> None:
    # The destructor of TFF's context needs modules that are gone a moment later, and
    # would end every other build with a traceback.
    tff.framework.set_default_context(_Ended())
    gc.collect()


def _workers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    found = []
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name() == _WORKER:
                found.append(child)
    return found


def _nested(type_: Any, flat: Sequence[np.ndarray]) -> Any:
    """Flat arrays as the TFF struct they came from."""
    values = iter(flat)

    def build(part: Any) -> Any:
        if not isinstance(part, tff.StructType):
            return next(values)
        return tff.structure.Struct(
            [(name, build(inner)) for name, inner in tff.structure.iter_elements(part)]
        )

    return build(type_)
