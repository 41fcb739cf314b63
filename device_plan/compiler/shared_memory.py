"""Keeps runtimes from overwriting a tensor that is still needed.

From TFLite 2.14 on the memory planner lets an elementwise operation write over its
input, and a reshape share its input's memory, if nothing else reads the input. It
asks this of the input and of the tensor at the root of the memory they share, but not
of those between (arena_planner.cc, IdentifyInPlaceTensors). In

    b = a + 1;  r = reshape(b);  s = r * 2;  t = b * 3

a, b and r share memory. r and a have one reader each, so s is written over b, and t is
wrong. One more reader of a, which costs nothing, makes the planner leave b its own
memory; then b is the root, and has two readers.
"""

from collections import defaultdict
from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

_OP = schema.BuiltinOperator

#: Operations whose output is their input's memory.
_VIEWS = frozenset({_OP.RESHAPE, _OP.EXPAND_DIMS, _OP.SQUEEZE})

#: Operations that never write over an input, among those that are frequent.
_APART = frozenset(
    {
        *(_OP.BATCH_MATMUL, _OP.FULLY_CONNECTED, _OP.CONV_2D, _OP.DEPTHWISE_CONV_2D),
        *(_OP.TRANSPOSE, _OP.TRANSPOSE_CONV, _OP.CONCATENATION, _OP.PACK, _OP.UNPACK),
        *(_OP.SUM, _OP.MEAN, _OP.REDUCE_MAX, _OP.ARG_MAX, _OP.SHAPE, _OP.FILL, _OP.TILE),
        *(_OP.GATHER, _OP.GATHER_ND, _OP.SCATTER_ND, _OP.STRIDED_SLICE, _OP.SLICE, _OP.SPLIT),
        *(_OP.PAD, _OP.PADV2, _OP.BROADCAST_TO, _OP.SPACE_TO_DEPTH, _OP.DEPTH_TO_SPACE),
    }
)


def keep_apart(model: Any) -> int:
    """Adds readers, which compute a shape, where a graph would otherwise overwrite itself.

    Args:
        model: The schema's object tree; changed.

    Returns:
        How many readers were added.
    """
    return sum(_keep_graph_apart(model, graph) for graph in model.subgraphs)


def _keep_graph_apart(model: Any, graph: Any) -> int:
    flow = _Flow(model, graph)
    wanted: set[int] = set()
    for tensor in list(flow.readers):
        if flow.is_endangered(tensor):
            wanted |= flow.to_be_read(tensor)
    added: dict[int, list[Any]] = defaultdict(list)
    for tensor in sorted(wanted):
        added[flow.producer[tensor]].append(_reader(model, graph, tensor))
    graph.operators = [
        operator
        for place, original in enumerate(graph.operators or [])
        for operator in (original, *added[place])
    ]
    return len(wanted)


class _Flow:
    """Who makes and who reads each tensor of a graph, by the operators' places in its order."""

    def __init__(self, model: Any, graph: Any) -> None:
        self._operators = graph.operators or []
        self._codes = [
            max(code.builtinCode, code.deprecatedBuiltinCode)
            for code in (model.operatorCodes[op.opcodeIndex] for op in self._operators)
        ]
        self.producer: dict[int, int] = {}
        self.readers: dict[int, list[int]] = defaultdict(list)
        for place, operator in enumerate(self._operators):
            for tensor in operator.outputs:
                self.producer[int(tensor)] = place
            for tensor in operator.inputs:
                self.readers[int(tensor)].append(place)

    def is_endangered(self, tensor: int) -> bool:
        """Whether a view of the tensor may be written over before its last reader."""
        if len(self.readers[tensor]) < 2 or not self._may_share(tensor):
            return False
        for reader in self.readers[tensor]:
            written = self._written_at(reader)
            others = [self._last(place) for place in self.readers[tensor] if place != reader]
            if written is not None and any(place > written for place in others):
                return True
        return False

    def to_be_read(self, tensor: int) -> set[int]:
        """Tensors of one reader whose second one keeps the tensor's memory from being shared."""
        root = tensor
        while root in self.producer and self._codes[self.producer[root]] in _VIEWS:
            root = int(self._operators[self.producer[root]].inputs[0])
        candidates = {root}
        if root in self.producer and self._codes[self.producer[root]] not in _APART:
            candidates |= {int(source) for source in self._operators[self.producer[root]].inputs}
        return {
            source
            for source in candidates
            if source in self.producer and len(self.readers[source]) < 2
        }

    def _may_share(self, tensor: int) -> bool:
        return tensor in self.producer and self._codes[self.producer[tensor]] not in _APART

    def _written_at(self, reader: int) -> int | None:
        """Where memory is written over that is reached through views of one reader each."""
        if self._codes[reader] not in _VIEWS:
            return None
        while self._codes[reader] in _VIEWS:
            after = self.readers[int(self._operators[reader].outputs[0])]
            if len(after) != 1:
                return None
            reader = after[0]
        return None if self._codes[reader] in _APART else reader

    def _last(self, reader: int) -> int:
        """Where what a reader reads is read last, through the views that it makes."""
        if self._codes[reader] not in _VIEWS:
            return reader
        after = self.readers[int(self._operators[reader].outputs[0])]
        return max((self._last(place) for place in after), default=reader)


def _reader(model: Any, graph: Any, tensor: int) -> Any:
    """An operation that computes the shape of a tensor, for nobody."""
    rank = len(graph.tensors[tensor].shape) if graph.tensors[tensor].shape is not None else 0
    output = schema.TensorT()
    output.name = b"unread"
    output.shape = [rank]
    output.type = schema.TensorType.INT32
    output.buffer = 0
    graph.tensors.append(output)
    operator = schema.OperatorT()
    operator.opcodeIndex = _shape_code(model)
    operator.inputs = [tensor]
    operator.outputs = [len(graph.tensors) - 1]
    operator.builtinOptionsType = schema.BuiltinOptions.ShapeOptions
    operator.builtinOptions = schema.ShapeOptionsT()
    operator.builtinOptions.outType = schema.TensorType.INT32
    return operator


def _shape_code(model: Any) -> int:
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == _OP.SHAPE:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = _OP.SHAPE
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
