"""Reads TFLite files without TensorFlow: graphs, tensors with their shapes, signatures.

A TFLite file is a flatbuffer of tensorflow/lite/schema/schema.fbs; a table's
fields are found by their slots, which never change. Only what a report needs
is read.
"""

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import flatbuffers.number_types as number  # type: ignore[import-untyped]
import numpy as np
from flatbuffers.table import Table  # type: ignore[import-untyped]

from device_plan.tflite_operators import first_release, name_of, newest

_Item = TypeVar("_Item")

_IDENTIFIER = b"TFL3"

# schema.fbs: TensorType. Types that numpy lacks have their bits in the name.
_DTYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string",
    "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4",
)  # fmt: skip

_INT, _BYTE, _BOOL, _INTS = "int", "byte", "bool", "ints"
_FLAGS = {_INT: number.Int32Flags, _BYTE: number.Int8Flags, _BOOL: number.BoolFlags}

# For the options that decide shapes and costs: field, slot, kind, default.
_WINDOW = (("padding", 0, _BYTE, 0), ("stride_w", 1, _INT, 0), ("stride_h", 2, _INT, 0))
_REDUCER = (("keep_dims", 0, _BOOL, 0),)
_BLOCK = (("block_size", 0, _INT, 0),)
_POOL = (*_WINDOW, ("filter_w", 3, _INT, 0), ("filter_h", 4, _INT, 0))
_CONV_3D = (
    ("padding", 0, _BYTE, 0),
    ("stride_d", 1, _INT, 0),
    ("stride_w", 2, _INT, 0),
    ("stride_h", 3, _INT, 0),
    ("dilation_d", 5, _INT, 1),
    ("dilation_w", 6, _INT, 1),
    ("dilation_h", 7, _INT, 1),
)
_OPTIONS: dict[str, tuple[tuple[str, int, str, int], ...]] = {
    "CONV_2D": (*_WINDOW, ("dilation_w", 4, _INT, 1), ("dilation_h", 5, _INT, 1)),
    "DEPTHWISE_CONV_2D": (*_WINDOW, ("dilation_w", 5, _INT, 1), ("dilation_h", 6, _INT, 1)),
    "TRANSPOSE_CONV": _WINDOW,
    "CONV_3D": _CONV_3D,
    "CONV_3D_TRANSPOSE": _CONV_3D,
    "AVERAGE_POOL_2D": _POOL,
    "MAX_POOL_2D": _POOL,
    "L2_POOL_2D": _POOL,
    "FULLY_CONNECTED": (("keep_num_dims", 2, _BOOL, 0),),
    "BATCH_MATMUL": (("adj_x", 0, _BOOL, 0), ("adj_y", 1, _BOOL, 0)),
    "RESHAPE": (("new_shape", 0, _INTS, 0),),
    "STRIDED_SLICE": (
        ("begin_mask", 0, _INT, 0),
        ("end_mask", 1, _INT, 0),
        ("ellipsis_mask", 2, _INT, 0),
        ("new_axis_mask", 3, _INT, 0),
        ("shrink_axis_mask", 4, _INT, 0),
        ("offset", 5, _BOOL, 0),
    ),
    **dict.fromkeys(("SUM", "MEAN", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN"), _REDUCER),
    **dict.fromkeys(("REDUCE_ANY", "REDUCE_ALL"), _REDUCER),
    "CONCATENATION": (("axis", 0, _INT, 0),),
    "PACK": (("axis", 1, _INT, 0),),
    "UNPACK": (("num", 0, _INT, 0), ("axis", 1, _INT, 0)),
    "SPLIT": (("num_splits", 0, _INT, 0),),
    "SPLIT_V": (("num_splits", 0, _INT, 0),),
    "ONE_HOT": (("axis", 0, _INT, 0),),
    "SQUEEZE": (("squeeze_dims", 0, _INTS, 0),),
    "SPACE_TO_DEPTH": _BLOCK,
    "DEPTH_TO_SPACE": _BLOCK,
    "GATHER": (("axis", 0, _INT, 0), ("batch_dims", 1, _INT, 0)),
    "WHILE": (("cond", 0, _INT, 0), ("body", 1, _INT, 0)),
    "IF": (("then", 0, _INT, 0), ("else", 1, _INT, 0)),
    "CALL_ONCE": (("init", 0, _INT, 0),),
}


class MalformedGraph(ValueError):
    """The bytes are not a TFLite file that can be read."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a graph.

    Attributes:
        name: As the converter called it.
        dtype: numpy's name, or the schema's ("string", "int4", "resource").
        shape: As the file declares it; -1 where the size is known only at run time.
        data: The bytes of a constant, else None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview | None

    def constant(self) -> np.ndarray | None:
        """The constant's value; None for what is computed, and for types numpy lacks."""
        if self.data is None or self.dtype in ("string", "resource", "variant", "int4"):
            return None
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Operator:
    """One operation of a graph.

    Attributes:
        name: "ADD", or a custom operation's own name.
        version: Of the builtin, from 1.
        custom: Whether it is not a builtin: Flex or custom.
        inputs: Indices into the graph's tensors; -1 for an optional input left out.
        outputs: Likewise.
        options: Those that decide shapes and costs, by field.
    """

    name: str
    version: int
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int | tuple[int, ...]]


@dataclass(frozen=True)
class Subgraph:
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True)
class SignatureDef:
    """A signature: names of a subgraph's inputs and outputs, with their tensor indices."""

    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True)
class TfliteFile:
    subgraphs: tuple[Subgraph, ...]
    signatures: Mapping[str, SignatureDef]

    @classmethod
    def from_bytes(cls, data: bytes) -> "TfliteFile":
        """Raises MalformedGraph."""
        try:
            if data[4:8] != _IDENTIFIER:
                raise MalformedGraph("not a TFLite file: it lacks the identifier TFL3")
            (position,) = struct.unpack_from("<I", data)
            return _file(_Table(Table(data, position)))
        except MalformedGraph:
            raise
        except Exception as error:
            # A damaged flatbuffer points anywhere: struct.error, IndexError,
            # UnicodeDecodeError, TypeError, as it happens.
            raise MalformedGraph(f"not a TFLite file: {error}") from error

    def operators(self, subgraph: int | None = None) -> Counter[tuple[str, int]]:
        """How often each (name, version) stands in one subgraph or in all of them."""
        graphs = self.subgraphs if subgraph is None else (self.subgraphs[subgraph],)
        return Counter((op.name, op.version) for graph in graphs for op in graph.operators)

    def custom_operators(self) -> tuple[str, ...]:
        """Names of what is not a TFLite builtin; Flex operations begin with "Flex"."""
        return tuple(
            sorted({op.name for graph in self.subgraphs for op in graph.operators if op.custom})
        )

    def min_runtime_version(self) -> str:
        """The newest of the operations' first releases; "" if no operation states one."""
        releases = (first_release(*operator) for operator in self.operators())
        return newest(release for release in releases if release)


class _Table:
    """A flatbuffer table: fields by slot."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def _offset(self, slot: int) -> int:
        return int(self._table.Offset(4 + 2 * slot))

    def scalar(self, slot: int, flags: Any, default: int = 0) -> int:
        offset = self._offset(slot)
        return int(self._table.Get(flags, self._table.Pos + offset)) if offset else default

    def text(self, slot: int) -> str:
        offset = self._offset(slot)
        return self._table.String(self._table.Pos + offset).decode() if offset else ""

    def ints(self, slot: int) -> tuple[int, ...] | None:
        """A vector of int32; None if the field is absent."""
        offset = self._offset(slot)
        if not offset:
            return None
        values = self._table.GetVectorAsNumpy(number.Int32Flags, offset)
        return tuple(int(value) for value in values)

    def data(self, slot: int) -> memoryview | None:
        """A vector of bytes, not copied; None if absent."""
        offset = self._offset(slot)
        if not offset:
            return None
        start, length = self._table.Vector(offset), self._table.VectorLen(offset)
        found = memoryview(self._table.Bytes)[start : start + length]
        if len(found) < length:
            raise MalformedGraph("a constant reaches beyond the end of the file")
        return found

    def table(self, slot: int) -> "_Table | None":
        offset = self._offset(slot)
        if not offset:
            return None
        return _Table(Table(self._table.Bytes, self._table.Indirect(self._table.Pos + offset)))

    def union(self, slot: int) -> "_Table | None":
        offset = self._offset(slot)
        if not offset:
            return None
        union = Table(bytearray(), 0)
        self._table.Union(union, offset)
        return _Table(union)

    def tables(self, slot: int, read: "Callable[[_Table], _Item]") -> tuple[_Item, ...]:
        offset = self._offset(slot)
        if not offset:
            return ()
        start = self._table.Vector(offset)
        positions = (start + 4 * index for index in range(self._table.VectorLen(offset)))
        return tuple(
            read(_Table(Table(self._table.Bytes, self._table.Indirect(position))))
            for position in positions
        )


def _file(model: _Table) -> TfliteFile:
    codes = model.tables(1, _code)
    buffers = model.tables(4, lambda buffer: buffer.data(0))
    return TfliteFile(
        subgraphs=model.tables(2, lambda graph: _subgraph(graph, codes, buffers)),
        signatures=dict(model.tables(7, _signature)),
    )


def _code(code: _Table) -> tuple[str, int, bool]:
    # Codes above 127 do not fit the old field.
    builtin = max(code.scalar(0, number.Int8Flags), code.scalar(3, number.Int32Flags))
    custom = code.text(1)
    return custom or name_of(builtin), code.scalar(2, number.Int32Flags, 1), bool(custom)


def _subgraph(
    graph: _Table,
    codes: tuple[tuple[str, int, bool], ...],
    buffers: tuple[memoryview | None, ...],
) -> Subgraph:
    return Subgraph(
        tensors=graph.tables(0, lambda tensor: _tensor(tensor, buffers)),
        inputs=graph.ints(1) or (),
        outputs=graph.ints(2) or (),
        operators=graph.tables(3, lambda operator: _operator(operator, codes)),
    )


def _tensor(tensor: _Table, buffers: tuple[memoryview | None, ...]) -> Tensor:
    code = tensor.scalar(1, number.Int8Flags)
    signature = tensor.ints(7)
    # `shape` holds 1 where `shape_signature` holds -1.
    shape = (tensor.ints(0) if signature is None else signature) or ()
    data = buffers[tensor.scalar(2, number.Uint32Flags)]
    # An empty buffer is either an empty constant or none.
    constant = data is not None and (len(data) > 0 or 0 in shape)
    return Tensor(
        name=tensor.text(3),
        dtype=_DTYPES[code] if 0 <= code < len(_DTYPES) else f"type {code}",
        shape=shape,
        data=data if constant else None,
    )


def _operator(operator: _Table, codes: tuple[tuple[str, int, bool], ...]) -> Operator:
    name, version, custom = codes[operator.scalar(0, number.Uint32Flags)]
    # Without the table every option has its default.
    options = operator.union(4)
    return Operator(
        name=name,
        version=version,
        custom=custom,
        inputs=operator.ints(1) or (),
        outputs=operator.ints(2) or (),
        options={
            field: _option(options, slot, kind, default)
            for field, slot, kind, default in _OPTIONS.get(name, ())
        },
    )


def _option(options: _Table | None, slot: int, kind: str, default: int) -> int | tuple[int, ...]:
    if kind == _INTS:
        return (options.ints(slot) if options else None) or ()
    if options is None:
        return default
    return options.scalar(slot, _FLAGS[kind], default)


def _signature(signature: _Table) -> tuple[str, SignatureDef]:
    return signature.text(2), SignatureDef(
        subgraph=signature.scalar(4, number.Uint32Flags),
        inputs=dict(signature.tables(0, _entry)),
        outputs=dict(signature.tables(1, _entry)),
    )


def _entry(entry: _Table) -> tuple[str, int]:
    return entry.text(0), entry.scalar(1, number.Uint32Flags)
