"""Checkpoints and updates as safetensors files.

A safetensors file is eight bytes of header length, a JSON header that gives
each tensor's dtype, shape and place, and the tensors' little-endian bytes.
The encoder orders tensors by decreasing item size, then by name, so that the
same tensors always give the same bytes, and tensors of one dtype lie side by
side: an aggregator adds a whole update with one BLAS call per dtype.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import safetensors
from safetensors.numpy import save

from device_plan.plan_pb2 import TensorSpec

#: numpy names of the dtypes a plan may use, by their name in a safetensors header.
DTYPES = {
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}

#: The header's own key among the tensors' names.
RESERVED_NAME = "__metadata__"

#: Bytes of header that a file may have beyond the one the encoder writes, for
#: other writers' key order, padding and metadata.
HEADER_SLACK = 4096


class MalformedCheckpoint(ValueError):
    """The bytes are not a safetensors file of plain tensors."""


class WrongTensors(ValueError):
    """A well-formed file whose names, shapes or dtypes are not those expected."""


def encode(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The tensors as one safetensors file; equal tensors give equal bytes.

    Raises:
        ValueError: a dtype outside `DTYPES`, or a name that the format reserves.
    """
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    for name, value in arrays.items():
        if name == RESERVED_NAME:
            raise ValueError(f"a tensor cannot be named {name!r}: safetensors reserves it")
        if value.dtype.name not in DTYPES.values():
            raise ValueError(
                f"tensor {name!r} is {value.dtype}; a plan may use {', '.join(DTYPES.values())}"
            )
    encoded: bytes = save(arrays)
    return encoded


def decode(data: bytes | memoryview) -> dict[str, np.ndarray]:
    """The tensors of a file, as read-only arrays that do not share memory with `data`.

    Raises:
        MalformedCheckpoint: not a safetensors file, a dtype outside `DTYPES`, or
            a shape that numpy cannot hold.
    """
    try:
        entries = safetensors.deserialize(bytes(data))  # type: ignore[no-untyped-call]
    except Exception as error:
        raise MalformedCheckpoint(f"not a safetensors file: {error}") from error
    tensors: dict[str, np.ndarray] = {}
    for name, entry in entries:
        dtype = DTYPES.get(entry["dtype"])
        if dtype is None:
            raise MalformedCheckpoint(
                f"tensor {name!r} has dtype {entry['dtype']}; known: {', '.join(DTYPES)}"
            )
        content = memoryview(entry["data"]).toreadonly()
        try:
            tensors[name] = np.frombuffer(content, np.dtype(dtype)).reshape(entry["shape"])
        except ValueError as error:
            # More than 32 dimensions, or a side that overflows beside an empty one.
            raise MalformedCheckpoint(f"tensor {name!r} has an impossible shape") from error
    return tensors


@dataclass(frozen=True)
class Block:
    """Tensors of one dtype that lie side by side in a file's data section."""

    dtype: np.dtype
    #: Byte offset in the data section.
    offset: int
    #: Elements.
    size: int
    #: (name, shape) of the tensors, in their order in the block.
    tensors: tuple[tuple[str, tuple[int, ...]], ...]


class Layout:
    """The file that `encode` writes for given tensor specs, known without any tensor.

    Args:
        specs: Names, dtypes and fully known shapes.

    Raises:
        ValueError: no specs, a name twice, an unknown dimension or dtype.

    Attributes:
        header: The bytes before the data section. A file that starts with them
            and has `file_size` bytes has exactly these tensors: one comparison
            checks every name, shape and dtype.
        blocks: The data section, one block per dtype.
        file_size: Bytes of the whole file.
        max_bytes: Bytes above which no acceptable file can be.
    """

    def __init__(self, specs: Iterable[TensorSpec]) -> None:
        self.specs: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        for spec in specs:
            if spec.name in self.specs:
                raise ValueError(f"tensor {spec.name!r} is listed twice")
            if spec.dtype not in DTYPES.values():
                raise ValueError(
                    f"tensor {spec.name!r} has dtype {spec.dtype!r}; "
                    f"a plan may use {', '.join(DTYPES.values())}"
                )
            self.specs[spec.name] = (np.dtype(spec.dtype), tuple(spec.shape))
        if not self.specs:
            raise ValueError("a layout needs at least one tensor")
        for name, (_, shape) in self.specs.items():
            if any(side < 0 for side in shape):
                raise ValueError(f"tensor {name!r} has an unknown dimension: {list(shape)}")
        encoded = encode({name: np.zeros(s, d) for name, (d, s) in self.specs.items()})
        self.file_size = len(encoded)
        self.header = encoded[: 8 + int.from_bytes(encoded[:8], "little")]
        self.data_size = self.file_size - len(self.header)
        self.max_bytes = self.file_size + HEADER_SLACK
        self.blocks = self._blocks()

    def _blocks(self) -> tuple[Block, ...]:
        places = json.loads(self.header[8:])
        blocks: list[Block] = []
        # The header lists tensors in the order of the data section.
        for name, place in places.items():
            dtype, shape = self.specs[name]
            size = int(np.prod(shape, dtype=np.int64))
            if blocks and blocks[-1].dtype == dtype:
                last = blocks.pop()
                blocks.append(
                    Block(dtype, last.offset, last.size + size, (*last.tensors, (name, shape)))
                )
            else:
                blocks.append(Block(dtype, place["data_offsets"][0], size, ((name, shape),)))
        return tuple(blocks)

    def views(self, data: bytes | memoryview) -> tuple[np.ndarray, ...]:
        """One flat read-only array per block of a received file.

        A file in the encoder's own layout is viewed without a copy; one of
        another writer with the same tensors is laid out anew.

        Raises:
            MalformedCheckpoint: not a safetensors file.
            WrongTensors: other names, shapes or dtypes; the message says which.
        """
        size = len(data)
        head = len(self.header)
        if size != self.file_size or bytes(data[:head]) != self.header:
            data = encode(self.check(decode(data)))
        return tuple(
            np.frombuffer(data, block.dtype, block.size, head + block.offset)
            for block in self.blocks
        )

    def check(self, tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The same mapping, or WrongTensors."""
        missing = sorted(set(self.specs) - set(tensors))
        if missing:
            raise WrongTensors(f"tensor {missing[0]!r} is missing")
        unknown = sorted(set(tensors) - set(self.specs))
        if unknown:
            raise WrongTensors(f"tensor {unknown[0]!r} is not in the plan")
        for name, (dtype, shape) in self.specs.items():
            value = tensors[name]
            if value.dtype != dtype:
                raise WrongTensors(f"tensor {name!r} is {value.dtype}, the plan says {dtype}")
            if value.shape != shape:
                raise WrongTensors(
                    f"tensor {name!r} has shape {list(value.shape)}, the plan says {list(shape)}"
                )
        return tensors

    def tensors(self, views: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """The named tensors of flat block arrays, as views."""
        named: dict[str, np.ndarray] = {}
        for block, flat in zip(self.blocks, views, strict=True):
            at = 0
            for name, shape in block.tensors:
                size = int(np.prod(shape, dtype=np.int64))
                named[name] = flat[at : at + size].reshape(shape)
                at += size
        return named


def spec_of(name: str, value: np.ndarray) -> TensorSpec:
    """The TensorSpec of an array."""
    return TensorSpec(name=name, dtype=value.dtype.name, shape=value.shape)
