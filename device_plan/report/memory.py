"""The memory of a graph: which tensors live at once."""

from dataclasses import dataclass

from device_plan.report.execution import Execution
from device_plan.tflite_file import TfliteFile

#: TFLite aligns what it places in its arena (tensorflow/lite/util.h: kDefaultTensorAlignment).
_ALIGNMENT = 64


@dataclass(frozen=True)
class Activations:
    """Tensors that a graph computes, constants excepted.

    Attributes:
        peak_bytes: The most that live at once: a lower bound of the runtime's
            arena, which has gaps and holds copies for some kernels.
        all_bytes: Of all of them: an upper bound without such copies.
    """

    peak_bytes: int
    all_bytes: int


def activations(file: TfliteFile, subgraph: int, execution: Execution) -> Activations:
    """What a subgraph's own tensors need, and those of the graphs it calls.

    A tensor lives from the operation that writes it to the last one that reads
    it; inputs and results of the graph live all the time.
    """
    graph = file.subgraphs[subgraph]
    last = len(graph.operators)
    born: dict[int, int] = dict.fromkeys(graph.inputs, 0)
    dies: dict[int, int] = {}
    for place, operator in enumerate(graph.operators):
        for index in operator.outputs:
            born.setdefault(index, place)
        for index in (*operator.inputs, *operator.outputs):
            dies[index] = place
    for index in (*graph.inputs, *graph.outputs):
        dies[index] = last
    change = [0] * (last + 2)
    total = 0
    for index, start in born.items():
        size = -(-execution.tensors[index].bytes // _ALIGNMENT) * _ALIGNMENT
        change[start] += size
        change[dies[index] + 1] -= size
        total += size
    peak = living = 0
    for size in change:
        living += size
        peak = max(peak, living)
    called = [activations(file, inner, of) for inner, of in execution.inner.items()]
    return Activations(
        peak + max((inner.peak_bytes for inner in called), default=0),
        total + sum(inner.all_bytes for inner in called),
    )
