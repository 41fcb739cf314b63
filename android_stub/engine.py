"""Runs a plan's computation with tflite-runtime, batch by batch.

    training:    state = begin(checkpoint, seed)
                 state = batch(checkpoint, state, examples)   for each batch
                 update = finish(checkpoint, state)
    evaluation:  metrics += eval(checkpoint, examples)        for each batch

Batches are consecutive examples in the store's order, the last one smaller,
the same for every epoch. Only a plan that says so (`seeded`) takes a seed.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tflite_runtime
from tflite_runtime.interpreter import Interpreter

from android_stub.large_blocks import mapped_apart
from device_plan.archive import DevicePart
from device_plan.checkpoint import Layout, WrongTensors
from device_plan.plan_pb2 import TensorSpec

#: As reported at check-in.
RUNTIME = f"tflite-runtime {tflite_runtime.__version__}"

Arrays = dict[str, np.ndarray]
#: The input of `begin` in a seeded plan, int32 [3].
SEED = "session/seed"

Computation = Literal["training", "evaluation"]
#: Called before each batch with (batches done, batches in all); stops by raising.
BeforeBatch = Callable[[int, int], None]

#: Bytes of a checkpoint from which on a device holds memory for one signature at a time.
LARGE_MODEL = 1 << 20

#: The signatures that each computation needs.
_NEEDED: dict[Computation, tuple[str, ...]] = {
    "training": ("begin", "batch", "finish"),
    "evaluation": ("eval",),
}


class UnsupportedPlan(Exception):
    """This runtime cannot execute the plan; another attempt will not help."""


class ComputationFailed(Exception):
    """The computation gave no usable result."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a computation gave.

    Attributes:
        tensors: Those of PlanManifest.update or .metrics.
        examples: Examples used, once each.
        batches: Batches executed, over all epochs.
        compute_ms: Milliseconds it took.
    """

    tensors: Arrays
    examples: int
    batches: int
    compute_ms: int


class _Signatures:
    """A graph's signatures, of which a large graph holds memory for one at a time.

    An interpreter keeps the memory of every signature that it has executed. So a large
    graph's is given up when another signature's turn comes: loading it anew takes
    milliseconds of a session's seconds. A small graph's is kept, for virtual devices
    execute thousands of sessions that take milliseconds.

    Args:
        graph: A TFLite file.
        large: Whether its memory counts for more than the time to load it.

    Attributes:
        names: Of the signatures.

    Raises:
        ValueError, RuntimeError: this runtime cannot load the graph.
    """

    def __init__(self, graph: bytes, *, large: bool) -> None:
        self._graph, self._large = graph, large
        self._interpreter: Any = Interpreter(model_content=graph, num_threads=1)
        self._runners: dict[str, Any] = {}
        self.names = frozenset(self._interpreter.get_signature_list())

    def call(self, name: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The signature's outputs. Raises ValueError or RuntimeError if it fails."""
        runner = self._runners.get(name)
        if runner is not None:
            return dict(runner(**inputs))
        self.give_up()
        with mapped_apart() if self._large else contextlib.nullcontext():
            if self._interpreter is None:
                self._interpreter = Interpreter(model_content=self._graph, num_threads=1)
            runner = self._runners[name] = self._interpreter.get_signature_runner(name)
            # Its memory is allocated when it is first executed.
            return dict(runner(**inputs))

    def give_up(self) -> None:
        """Frees what a large graph's execution took."""
        if self._large and self._runners:
            self._runners.clear()
            self._interpreter = None


class Engine:
    """An interpreter for one plan, used by one thread at a time.

    Raises:
        UnsupportedPlan: the graph does not load, or the manifest and the
            graph's signatures disagree.
    """

    def __init__(self, plan: DevicePart) -> None:
        manifest = plan.manifest
        _check_runtime(manifest.min_runtime_version)
        self._manifest = manifest
        self._checkpoint = Layout(manifest.checkpoint)
        large = self._checkpoint.file_size >= LARGE_MODEL
        try:
            self._signatures = _Signatures(plan.graph, large=large)
        except (ValueError, RuntimeError) as error:
            raise UnsupportedPlan(f"the graph does not load in {RUNTIME}: {error}") from error
        if missing := sorted(set(manifest.signatures) - self._signatures.names):
            raise UnsupportedPlan(f"the graph has no signature {missing[0]!r} of its manifest")
        self._results: dict[Computation, tuple[TensorSpec, ...]] = {
            "training": tuple(manifest.update),
            "evaluation": tuple(manifest.metrics),
        }
        self._metrics = frozenset(spec.name for spec in manifest.metrics)
        self._sources = {
            name: self._wiring(name, [spec.name for spec in signature.inputs])
            for name, signature in manifest.signatures.items()
        }

    def _wiring(self, signature: str, inputs: list[str]) -> tuple[tuple[str, int], ...]:
        """For each input, where its value comes from: 0 checkpoint, 1 state, 2 examples, 3 seed."""
        manifest = self._manifest
        begin = manifest.signatures["begin"].outputs if "begin" in manifest.signatures else ()
        known = (
            {spec.name for spec in manifest.checkpoint},
            {spec.name for spec in begin},
            {spec.name for spec in manifest.examples},
            {SEED} if manifest.seeded and signature == "begin" else set(),
        )
        wiring = []
        for name in inputs:
            places = [place for place, names in enumerate(known) if name in names]
            if len(places) != 1:
                raise UnsupportedPlan(
                    f"input {name!r} of signature {signature!r} is the name of "
                    f"{len(places)} tensors of the plan, not of one"
                )
            wiring.append((name, places[0]))
        return tuple(wiring)

    def run(
        self,
        computation: Computation,
        *,
        checkpoint: Mapping[str, np.ndarray],
        examples: Mapping[str, np.ndarray],
        before_batch: BeforeBatch,
        seed: np.ndarray | None = None,
    ) -> Outcome:
        """Executes the whole computation.

        Args:
            computation: Which of the plan's two.
            checkpoint: Exactly the tensors of PlanManifest.checkpoint.
            examples: The tensors of PlanManifest.examples, one row an example,
                at least one row; others are ignored.
            before_batch: Whatever it raises ends the computation.
            seed: int32 [3], each from 1 to 30000; needed to train a seeded plan.

        Raises:
            UnsupportedPlan: the plan has no such computation.
            ComputationFailed: wrong tensors, a failure in the graph, or a
                result that is not finite or not as the manifest says.
        """
        for name in _NEEDED[computation]:
            if name not in self._manifest.signatures:
                raise UnsupportedPlan(f"the plan has no signature {name!r} for {computation}")
        try:
            self._checkpoint.check(checkpoint)
        except WrongTensors as error:
            raise ComputationFailed(f"checkpoint: {error}") from error
        rows = self._rows(examples)
        started = time.monotonic()
        try:
            done, tensors = self._session(
                computation, checkpoint, examples, rows, before_batch, seed
            )
        finally:
            self._signatures.give_up()
        return Outcome(
            tensors=self._checked(computation, tensors),
            examples=rows,
            batches=done,
            compute_ms=round(1000 * (time.monotonic() - started)),
        )

    def _session(
        self,
        computation: Computation,
        checkpoint: Mapping[str, np.ndarray],
        examples: Mapping[str, np.ndarray],
        rows: int,
        before_batch: BeforeBatch,
        seed: np.ndarray | None,
    ) -> tuple[int, Arrays]:
        """How many batches were executed, and what came of them."""
        epochs = max(1, self._manifest.epochs) if computation == "training" else 1
        total = epochs * -(-rows // self._batch_size(rows))
        done = 0
        tensors: Arrays = {}
        state: Arrays = {}
        if computation == "training":
            state = self._call("begin", checkpoint, {}, {}, self._seed(seed))
        for _ in range(epochs):
            for batch in self._batches(examples, rows):
                before_batch(done, total)
                if computation == "training":
                    state = self._call("batch", checkpoint, state, batch)
                else:
                    results = self._call("eval", checkpoint, {}, batch)
                    # Predictions stay here.
                    _add(tensors, {n: v for n, v in results.items() if n in self._metrics})
                done += 1
        if computation == "training":
            tensors = self._call("finish", checkpoint, state, {})
        return done, tensors

    def _seed(self, seed: np.ndarray | None) -> Arrays:
        if not self._manifest.seeded:
            return {}
        if seed is None or seed.dtype != np.int32 or seed.shape != (3,):
            raise ValueError(f"a seeded plan needs a seed of int32 [3], not {seed!r}")
        return {SEED: seed}

    def _batch_size(self, rows: int) -> int:
        return self._manifest.batch_size or rows

    def _rows(self, examples: Mapping[str, np.ndarray]) -> int:
        rows = -1
        for spec in self._manifest.examples:
            value = examples.get(spec.name)
            if value is None:
                raise ComputationFailed(
                    f"the examples have no tensor {spec.name!r}; they have: "
                    + ", ".join(sorted(examples))
                )
            if value.dtype != np.dtype(spec.dtype) or value.shape[1:] != tuple(spec.shape[1:]):
                raise ComputationFailed(
                    f"example tensor {spec.name!r} is {value.dtype} {list(value.shape[1:])} per "
                    f"example, the plan says {spec.dtype} {list(spec.shape[1:])}"
                )
            if rows not in (-1, len(value)):
                raise ComputationFailed(f"example tensor {spec.name!r} has another length")
            rows = len(value)
        if rows < 1:
            raise ComputationFailed("there is no example to compute on")
        return rows

    def _batches(self, examples: Mapping[str, np.ndarray], rows: int) -> Iterator[Arrays]:
        size = self._batch_size(rows)
        names = [spec.name for spec in self._manifest.examples]
        for start in range(0, rows, size):
            yield {name: examples[name][start : start + size] for name in names}

    def _call(
        self,
        signature: str,
        checkpoint: Mapping[str, np.ndarray],
        state: Mapping[str, np.ndarray],
        examples: Mapping[str, np.ndarray],
        seed: Mapping[str, np.ndarray] | None = None,
    ) -> Arrays:
        places = (checkpoint, state, examples, seed or {})
        inputs = {name: places[place][name] for name, place in self._sources[signature]}
        try:
            return self._signatures.call(signature, inputs)
        except (ValueError, RuntimeError) as error:
            raise ComputationFailed(f"signature {signature!r} failed: {error}") from error

    def _checked(self, computation: Computation, tensors: Arrays) -> Arrays:
        checked: Arrays = {}
        for spec in self._results[computation]:
            value = tensors.get(spec.name)
            if value is None:
                raise ComputationFailed(f"the graph gave no {spec.name!r}")
            if value.dtype != np.dtype(spec.dtype) or value.shape != tuple(spec.shape):
                raise ComputationFailed(
                    f"the graph gave {spec.name!r} as {value.dtype} {list(value.shape)}, the plan "
                    f"says {spec.dtype} {list(spec.shape)}"
                )
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ComputationFailed(f"{spec.name!r} is not finite: nothing is uploaded")
            checked[spec.name] = value
        return checked


class Engines:
    """Interpreters kept per thread, so that sessions of one plan share them.

    Args:
        per_thread: Interpreters that each thread keeps; the least recently
            used one is dropped first.
    """

    def __init__(self, *, per_thread: int = 2) -> None:
        self._per_thread = per_thread
        self._local = threading.local()

    def get(self, digest: str, plan: DevicePart) -> Engine:
        """The calling thread's engine for the plan with this SHA-256. Raises UnsupportedPlan."""
        kept: OrderedDict[str, Engine] | None = getattr(self._local, "kept", None)
        if kept is None:
            kept = self._local.kept = OrderedDict()
        engine = kept.get(digest)
        if engine is None:
            engine = kept[digest] = Engine(plan)
            while len(kept) > self._per_thread:
                kept.popitem(last=False)
        kept.move_to_end(digest)
        return engine


def _add(total: Arrays, more: Mapping[str, np.ndarray]) -> None:
    for name, value in more.items():
        # A plain `+` of two rank-0 arrays is a numpy scalar; asarray keeps shape and dtype.
        total[name] = np.asarray(total[name] + value) if name in total else value


def _check_runtime(needed: str) -> None:
    if not needed:
        return
    have = tflite_runtime.__version__
    if _version(have) < _version(needed):
        raise UnsupportedPlan(f"the plan needs TFLite runtime {needed}, this one is {have}")


def _version(text: str) -> tuple[int, ...]:
    parts = []
    for part in text.split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)
