"""Reads and rewrites TFLite files: operations, versions, and the names in signatures."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from device_plan.plan_pb2 import OpCount, Signature, TensorSpec

#: Bytes to which TFLite wants constants aligned (schema.fbs: Buffer.data force_align).
_ALIGNMENT = 16

_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.FLOAT64: "float64",
    schema.TensorType.INT64: "int64",
    schema.TensorType.INT32: "int32",
    schema.TensorType.INT16: "int16",
    schema.TensorType.INT8: "int8",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.BOOL: "bool",
}

_OP_NAMES = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}


@dataclass(frozen=True)
class Renaming:
    """New names for one signature's tensors, by old name."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class TrainingGraph:
    """A TFLite file, parsed.

    Attributes:
        model: The schema's object tree.
    """

    def __init__(self, data: bytes) -> None:
        self.model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))

    def ops(self) -> list[OpCount]:
        """Every operation with its version and how often it occurs, by name."""
        codes = [(_op_name(code), int(code.version or 1)) for code in self.model.operatorCodes]
        counts = Counter(
            codes[operator.opcodeIndex]
            for graph in self.model.subgraphs
            for operator in graph.operators
        )
        return [
            OpCount(name=name, version=version, count=count)
            for (name, version), count in sorted(counts.items())
        ]

    def custom_ops(self) -> list[str]:
        """Operations that are not TFLite builtins (Flex or custom)."""
        return sorted(
            code.customCode.decode() for code in self.model.operatorCodes if code.customCode
        )

    def min_runtime_version(self) -> str:
        """As the converter states it; "" if it does not."""
        for entry in self.model.metadata or []:
            if entry.name == b"min_runtime_version":
                data = self.model.buffers[entry.buffer].data
                return bytes(data).split(b"\0")[0].decode()
        return ""

    def operators_in_first_subgraph(self) -> int:
        return len(self.model.subgraphs[0].operators or [])

    def signatures(self) -> dict[str, Signature]:
        """The signatures; a first dimension that the file leaves open is -1."""
        signatures = {}
        for definition in self.model.signatureDefs:
            graph = self.model.subgraphs[definition.subgraphIndex]
            signatures[definition.signatureKey.decode()] = Signature(
                inputs=[_spec(graph, entry) for entry in definition.inputs or []],
                outputs=[_spec(graph, entry) for entry in definition.outputs or []],
            )
        return signatures

    def rename(self, renamings: Mapping[str, Renaming]) -> None:
        """Gives signature tensors the plan's names, which TensorFlow would not accept."""
        for definition in self.model.signatureDefs:
            renaming = renamings[definition.signatureKey.decode()]
            for entry in definition.inputs or []:
                entry.name = renaming.inputs[entry.name.decode()].encode()
            for entry in definition.outputs or []:
                entry.name = renaming.outputs[entry.name.decode()].encode()

    def to_bytes(self) -> bytes:
        builder = _AlignedBuilder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def drop_conversion_metadata(self) -> None:
        """Removes what differs between two conversions of the same graph."""
        for entry in self.model.metadata or []:
            if entry.name == b"CONVERSION_METADATA":
                self.model.buffers[entry.buffer].data = None
        self.model.metadata = [
            entry for entry in self.model.metadata or [] if entry.name != b"CONVERSION_METADATA"
        ]


class _AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Aligns byte vectors, which the generated Python code forgets."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802
        if x.dtype != np.uint8:
            return int(super().CreateNumpyVector(x))
        data = x.tobytes()
        self.StartVector(1, len(data), _ALIGNMENT)
        self.head -= len(data)
        self.Bytes[self.head : self.head + len(data)] = data
        return int(self.EndVector())


def _op_name(code: Any) -> str:
    if code.customCode:
        return str(code.customCode.decode())
    # Codes above 127 do not fit the old field.
    return str(_OP_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)])


def _spec(graph: Any, entry: Any) -> TensorSpec:
    tensor = graph.tensors[entry.tensorIndex]
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return TensorSpec(
        name=entry.name.decode(),
        dtype=_DTYPES.get(tensor.type, f"type {tensor.type}"),
        shape=[int(side) for side in (shape if shape is not None else [])],
    )
