"""Reads and rewrites TFLite files: operations, versions, and the names in signatures."""

from collections import Counter
from collections.abc import Iterator, Mapping
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
    """A TFLite file, read in place: the object tree of a large graph takes seconds to make."""

    def __init__(self, data: bytes) -> None:
        self._file: Any = schema.Model.GetRootAsModel(data, 0)

    def ops(self) -> list[OpCount]:
        """Every operation with its version and how often it occurs, by name."""
        file = self._file
        codes = [file.OperatorCodes(index) for index in range(file.OperatorCodesLength())]
        kinds = [(_op_name(code), int(code.Version() or 1)) for code in codes]
        counts = Counter(
            kinds[graph.Operators(index).OpcodeIndex()]
            for graph in self._subgraphs()
            for index in range(graph.OperatorsLength())
        )
        return [
            OpCount(name=name, version=version, count=count)
            for (name, version), count in sorted(counts.items())
        ]

    def custom_ops(self) -> list[str]:
        """Operations that are not TFLite builtins (Flex or custom)."""
        codes = map(self._file.OperatorCodes, range(self._file.OperatorCodesLength()))
        return sorted(code.CustomCode().decode() for code in codes if code.CustomCode())

    def min_runtime_version(self) -> str:
        """As the converter states it; "" if it does not."""
        for entry in map(self._file.Metadata, range(self._file.MetadataLength())):
            if entry.Name() == b"min_runtime_version":
                data = self._file.Buffers(entry.Buffer()).DataAsNumpy()
                return bytes(data).split(b"\0")[0].decode()
        return ""

    def operators_in_first_subgraph(self) -> int:
        return int(self._file.Subgraphs(0).OperatorsLength())

    def signatures(self) -> dict[str, Signature]:
        """The signatures; a first dimension that the file leaves open is -1."""
        signatures = {}
        for definition in map(self._file.SignatureDefs, range(self._file.SignatureDefsLength())):
            graph = self._file.Subgraphs(definition.SubgraphIndex())
            inputs = map(definition.Inputs, range(definition.InputsLength()))
            outputs = map(definition.Outputs, range(definition.OutputsLength()))
            signatures[definition.SignatureKey().decode()] = Signature(
                inputs=[_spec(graph, entry) for entry in inputs],
                outputs=[_spec(graph, entry) for entry in outputs],
            )
        return signatures

    def _subgraphs(self) -> Iterator[Any]:
        return map(self._file.Subgraphs, range(self._file.SubgraphsLength()))


class EditableGraph:
    """A TFLite file as objects that can be changed.

    Attributes:
        model: The schema's object tree.
    """

    def __init__(self, data: bytes) -> None:
        self.model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))

    def rename(self, renamings: Mapping[str, Renaming]) -> None:
        """Gives signature tensors the plan's names, which TensorFlow would not accept."""
        for definition in self.model.signatureDefs:
            renaming = renamings[definition.signatureKey.decode()]
            for entry in definition.inputs or []:
                entry.name = renaming.inputs[entry.name.decode()].encode()
            for entry in definition.outputs or []:
                entry.name = renaming.outputs[entry.name.decode()].encode()

    def drop_unread_inputs(self) -> None:
        """Removes inputs that nothing reads: a runtime would keep memory for them and fill it.

        Every signature keeps one at least, without which older runtimes cannot call it.
        """
        for definition in self.model.signatureDefs:
            graph = self.model.subgraphs[definition.subgraphIndex]
            needed = {int(index) for index in graph.outputs}
            for operator in graph.operators or []:
                needed |= {int(index) for index in operator.inputs}
            kept = [entry for entry in definition.inputs or [] if entry.tensorIndex in needed]
            definition.inputs = kept or (definition.inputs or [])[:1]
            named = {entry.tensorIndex for entry in definition.inputs}
            graph.inputs = [int(index) for index in graph.inputs if index in named]

    def to_bytes(self) -> bytes:
        builder = _AlignedBuilder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


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
    if code.CustomCode():
        return str(code.CustomCode().decode())
    # Codes above 127 do not fit the old field.
    return str(_OP_NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())])


def _spec(graph: Any, entry: Any) -> TensorSpec:
    tensor = graph.Tensors(entry.TensorIndex())
    if tensor.ShapeSignatureIsNone():
        shape = map(tensor.Shape, range(tensor.ShapeLength()))
    else:
        shape = map(tensor.ShapeSignature, range(tensor.ShapeSignatureLength()))
    return TensorSpec(
        name=entry.Name().decode(),
        dtype=_DTYPES.get(tensor.Type(), f"type {tensor.Type()}"),
        shape=[int(side) for side in shape],
    )
