"""Executes a plan's cases on the TFLite runtime of the environment it is started in.

    python -I runner.py WORK --graph FILE --interpreter MODULE --delegates default|none

This file runs alone, without Nightshift, in environments as old as Python 3.8:
it uses the standard library and numpy only. WORK is what `bundle` wrote:

    cases.json      which array is what, see `bundle`
    checkpoint.npz  the tensors that all cases start from
    cases.npz       examples, seeds and references

The last line of its output is one JSON object:

    {"format": 1, "import_s", "interpreter_s", "seconds_per_step",
     "rss_import_bytes", "rss_bytes",
     "differences": [one for each case, null if not finite],
     "error": null or what the runtime said, "switch": whether it has one for delegates}
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import inspect
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    # Python 3.8 has no subscripts for these at run time.
    from collections.abc import Callable, Iterable, Mapping

    Arrays = Mapping[str, np.ndarray]

FORMAT = 1

#: Calls before the clock runs, and limits for those it sees.
WARM_UP, FEWEST_CALLS, MOST_CALLS, TIMED_S = 3, 5, 50, 2.0

#: Elements that are compared at once.
PIECE = 1 << 16

#: malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def relative_difference(ours: Arrays, reference: Arrays) -> float:
    """The largest ||ours - reference|| / ||reference||; anything not finite is infinite.

    The tensors of the model's change (`delta/...`) are one vector. The others, counts
    among them, stand alone: their size must not hide a difference elsewhere.
    """
    squares: dict[str, tuple[float, float]] = {}
    for name, expected in reference.items():
        mine = ours[name]
        if mine.shape != expected.shape:
            return math.inf
        group = "delta" if name.startswith("delta/") else name
        apart, size = squares.get(group, (0.0, 0.0))
        more_apart, more_size = _squares(mine.reshape(-1), expected.reshape(-1))
        squares[group] = (apart + more_apart, size + more_size)
    # Below the smallest normal float32 a size is as good as zero.
    ratios = [math.sqrt(d) / max(math.sqrt(n), 1.2e-38) for d, n in squares.values()]
    return max(r if math.isfinite(r) else math.inf for r in ratios)


def _squares(mine: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """||mine - expected||² and ||expected||² of vectors, in double precision."""
    apart = size = 0.0
    # In pieces: doubles of the whole would be what is measured as the runtime's memory.
    for start in range(0, len(mine), PIECE):
        a = mine[start : start + PIECE].astype(np.float64)
        b = expected[start : start + PIECE].astype(np.float64)
        apart += float(np.sum(np.square(a - b)))
        size += float(np.sum(np.square(b)))
    return apart, size


class Graph:
    """A plan's graph on one runtime, called by signature.

    Each signature is called on an interpreter of its own, which is given up when another
    one's turn comes: an interpreter keeps the memory of every signature that it has
    executed. A graph is mapped into memory and loads in milliseconds.

    Args:
        load: Gives a new interpreter.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._signature = ""
        self._executed = False
        self._runner: Any = None
        self._inputs = {
            name: list(signature["inputs"])
            for name, signature in load().get_signature_list().items()
        }

    def call(self, signature: str, *sources: Arrays) -> dict[str, np.ndarray]:
        if signature != self._signature:
            self._runner = None
            map_large_blocks(apart=True)
            self._runner, self._signature = self._load().get_signature_runner(signature), signature
            self._executed = False
        values: dict[str, np.ndarray] = {}
        for source in sources:
            values.update(source)
        inputs = {name: values[name] for name in self._inputs[signature]}
        outputs = dict(self._runner(**inputs))
        if not self._executed:
            map_large_blocks(apart=False)
            self._executed = True
        return outputs

    def train(self, checkpoint: Arrays, batches: Iterable[Arrays]) -> dict[str, np.ndarray]:
        state = self.call("begin", checkpoint)
        for batch in batches:
            state = self.call("batch", checkpoint, state, batch)
        return self.call("finish", checkpoint, state)

    def evaluate(
        self, checkpoint: Arrays, batches: Iterable[Arrays], metrics: Iterable[str]
    ) -> dict[str, np.ndarray]:
        names = list(metrics)
        total: dict[str, np.ndarray] = {}
        for batch in batches:
            outputs = self.call("eval", checkpoint, batch)
            for name in names:
                value = outputs[name]
                # A plain sum of two rank-0 arrays is a numpy scalar.
                total[name] = np.asarray(total[name] + value) if name in total else value
        return total


class Work:
    """The work directory; arrays are read when they are needed, to keep memory small."""

    def __init__(self, directory: Path) -> None:
        index = json.loads((directory / "cases.json").read_text())
        if index["format"] != FORMAT:
            raise ValueError(f"the work directory has format {index['format']!r}")
        self.cases: list[dict[str, Any]] = index["cases"]
        with np.load(directory / "checkpoint.npz") as arrays:
            self.checkpoint = {name: arrays[key] for name, key in index["checkpoint"].items()}
        self._arrays = np.load(directory / "cases.npz")

    def tensors(self, keys: Mapping[str, str]) -> dict[str, np.ndarray]:
        return {name: self._arrays[key] for name, key in keys.items()}

    def start(self, case: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What `begin` or `eval` may take besides examples: the checkpoint and the seed."""
        return {**self.checkpoint, **self.tensors(case["seed"])}

    def session(self, case: Mapping[str, Any]) -> Iterable[Arrays]:
        for _ in range(case["epochs"]):
            for batch in case["batches"]:
                yield self.tensors(batch)


def difference(graph: Graph, work: Work, case: Mapping[str, Any]) -> float | None:
    if case["computation"] == "training":
        ours = graph.train(work.start(case), work.session(case))
    else:
        ours = graph.evaluate(work.start(case), work.session(case), case["reference"])
    found = relative_difference(ours, work.tensors(case["reference"]))
    return found if math.isfinite(found) else None


def seconds_per_step(graph: Graph, work: Work) -> float | None:
    """The median over calls of `batch`, from the same state and on the same full batch."""
    training = [case for case in work.cases if case["computation"] == "training"]
    if not training:
        return None
    start, batch = work.start(training[0]), work.tensors(training[0]["batches"][0])
    state = graph.call("begin", start)
    for _ in range(WARM_UP):
        graph.call("batch", start, state, batch)
    taken: list[float] = []
    while len(taken) < FEWEST_CALLS or (len(taken) < MOST_CALLS and sum(taken) < TIMED_S):
        began = time.perf_counter()
        graph.call("batch", start, state, batch)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def peak_rss() -> int:
    """Bytes of this process's largest resident set so far (VmHWM of proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def map_large_blocks(apart: bool) -> None:
    """Has the C library map large blocks one by one, and return each when it is freed, or not.

    An interpreter's memory should be apart: glibc would keep its blocks when they are
    freed, or the holes they leave. What a step takes and gives back each time should
    not be: its pages would be mapped and cleared at every step, which takes a third of
    a convolutional network's. Android's allocator does both: it maps large blocks, and
    keeps those that were freed a moment ago. (mallopt(3), malloc_trim(3).)
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
        library.mallopt(_M_MMAP_THRESHOLD, 1 << (17 if apart else 25))
        library.mallopt(_M_TRIM_THRESHOLD, 1 << (17 if apart else 25))


def options(module: Any, delegates: str) -> tuple[dict[str, Any], bool]:
    """Arguments for the Interpreter, and whether this runtime can leave its delegates out."""
    kinds = getattr(module, "OpResolverType", None)
    without = getattr(kinds, "BUILTIN_WITHOUT_DEFAULT_DELEGATES", None)
    known = inspect.signature(module.Interpreter.__init__).parameters
    switch = without is not None and "experimental_op_resolver_type" in known
    chosen = delegates == "none" and switch
    return ({"experimental_op_resolver_type": without} if chosen else {}), switch


def run(work: Work, graph_file: Path, interpreter: str, delegates: str) -> dict[str, Any]:
    result: dict[str, Any] = {"format": FORMAT, "differences": [], "error": None}
    began = time.perf_counter()
    module = importlib.import_module(interpreter)
    result["import_s"] = time.perf_counter() - began
    result["rss_import_bytes"] = peak_rss()
    arguments, result["switch"] = options(module, delegates)
    doing = "the graph does not load"
    try:
        began = time.perf_counter()
        graph = Graph(
            lambda: module.Interpreter(model_path=str(graph_file), num_threads=1, **arguments)
        )
        result["interpreter_s"] = time.perf_counter() - began
        doing = "a training step fails"
        result["seconds_per_step"] = seconds_per_step(graph, work)
        for case in work.cases:
            doing = f"{case['name']} fails"
            result["differences"].append(difference(graph, work, case))
    except Exception as error:  # whatever a runtime raises is its answer
        result["error"] = f"{doing}: {str(error).strip() or type(error).__name__}"
    result["rss_bytes"] = peak_rss()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Executes a plan's cases on a TFLite runtime.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--interpreter", required=True)
    parser.add_argument("--delegates", choices=("default", "none"), required=True)
    chosen = parser.parse_args()
    result = run(Work(chosen.work), chosen.graph, chosen.interpreter, chosen.delegates)
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
