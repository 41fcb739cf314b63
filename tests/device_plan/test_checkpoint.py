import contextlib
import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from device_plan.checkpoint import (
    DTYPES,
    Layout,
    MalformedCheckpoint,
    WrongTensors,
    decode,
    encode,
    spec_of,
)
from device_plan.plan_pb2 import TensorSpec

Tensors = dict[str, np.ndarray]

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda name: name != "__metadata__"
)
arrays = st.sampled_from(sorted(DTYPES.values())).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)
tensors = st.dictionaries(names, arrays, max_size=6)
some_tensors = st.dictionaries(names, arrays, min_size=1, max_size=6)


def safetensors_file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def another_writers_file(values: Tensors, order: list[str], pad: int, metadata: bool) -> bytes:
    """The same tensors, in another order of header and data, padded and annotated."""
    header: dict[str, Any] = {"__metadata__": {"writer": "another"}} if metadata else {}
    data = b""
    short = {long: name for name, long in DTYPES.items()}
    for name in order:
        content = values[name].tobytes()
        header[name] = {
            "data_offsets": [len(data), len(data) + len(content)],
            "shape": list(values[name].shape),
            "dtype": short[values[name].dtype.name],
        }
        data += content
    return safetensors_file(json.dumps(header).encode() + b" " * pad, data)


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()


@given(tensors)
def test_tensors_survive_encoding(values: Tensors) -> None:
    assert_same(decode(encode(values)), values)


@given(tensors)
def test_the_safetensors_library_reads_what_is_encoded(values: Tensors) -> None:
    assert_same(safetensors.numpy.load(encode(values)), values)


@given(tensors, st.randoms())
def test_equal_tensors_give_equal_bytes_in_any_order(values: Tensors, random: Any) -> None:
    shuffled = list(values.items())
    random.shuffle(shuffled)
    assert encode(dict(shuffled)) == encode(values)


def test_memory_order_and_byte_order_do_not_matter() -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = encode({"a": value})
    assert encode({"a": np.asfortranarray(value)}) == expected
    assert encode({"a": value.astype(">f4")}) == expected
    assert encode({"a": np.repeat(value, 2, axis=1)[:, ::2]}) == expected


def test_decoded_tensors_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        decode(encode({"a": np.zeros(2)}))["a"][0] = 1


@pytest.mark.parametrize("dtype", ["float16", "complex64", "uint16", "object", "<U3"])
def test_a_dtype_that_no_plan_may_use_is_not_encoded(dtype: str) -> None:
    with pytest.raises(ValueError, match="tensor 'a' is "):
        encode({"a": np.zeros(2, dtype)})


def test_the_reserved_name_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="reserves"):
        encode({"__metadata__": np.zeros(2)})


def entry(dtype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 16,
        safetensors_file(b"[]"),
        safetensors_file(b"[" * 100_000),
        safetensors_file(b"\xff\xfe"),
        safetensors_file({"a": {}}),
        safetensors_file(entry("F32", [2], 4), bytes(4)),
        safetensors_file(entry("F32", [1], 4), bytes(3)),
        safetensors_file(entry("F32", [1], 4), bytes(5)),
        safetensors_file(entry("F32", [-1], 4), bytes(4)),
        safetensors_file(entry("F32", [2**63, 0], 0)),
        safetensors_file(entry("F32", [2**40, 2**40], 4), bytes(4)),
        safetensors_file(entry("F32", [1] * 33, 4), bytes(4)),
        safetensors_file(entry("F16", [1], 2), bytes(2)),
        safetensors_file(entry("nothing", [1], 2), bytes(2)),
    ],
)
def test_a_malformed_file_is_refused_as_one(data: bytes) -> None:
    with pytest.raises(MalformedCheckpoint):
        decode(data)


@given(st.binary(max_size=64))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for candidate in (data, safetensors_file(data)):
        with contextlib.suppress(MalformedCheckpoint):
            decode(candidate)


@given(some_tensors, st.data())
def test_a_damaged_file_gives_tensors_or_is_refused(values: Tensors, data: st.DataObject) -> None:
    file = bytearray(encode(values))
    layout = Layout(spec_of(name, value) for name, value in values.items())
    for _ in range(data.draw(st.integers(1, 3))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(file[: data.draw(st.integers(0, len(file)))])
    for read in (decode, layout.views):
        with contextlib.suppress(MalformedCheckpoint, WrongTensors):
            read(damaged)


@given(some_tensors)
def test_a_layout_knows_the_encoders_file_without_the_tensors(values: Tensors) -> None:
    layout = Layout(spec_of(name, value) for name, value in values.items())
    file = encode(values)
    assert len(file) == layout.file_size
    assert file.startswith(layout.header)
    assert sum(block.dtype.itemsize * block.size for block in layout.blocks) == layout.data_size
    assert len({block.dtype for block in layout.blocks}) == len(layout.blocks)


@given(some_tensors, st.randoms(), st.integers(0, 64), st.booleans(), st.booleans())
@example({"a": np.zeros((0, 3), np.float32)}, None, 0, False, True)
def test_views_are_what_the_safetensors_library_reads(
    values: Tensors, random: Any, pad: int, metadata: bool, own: bool
) -> None:
    order = list(values)
    if random is not None:
        random.shuffle(order)
    file = encode(values) if own else another_writers_file(values, order, pad, metadata)
    layout = Layout(spec_of(name, value) for name, value in values.items())
    assert len(file) <= layout.max_bytes
    for received in (file, memoryview(file)):
        assert_same(layout.tensors(layout.views(received)), safetensors.numpy.load(file))


def test_views_of_the_encoders_own_file_share_its_memory() -> None:
    layout = Layout([TensorSpec(name="a", dtype="float32", shape=[1024])])
    file = encode({"a": np.zeros(1024, np.float32)})
    assert np.shares_memory(layout.views(file)[0], np.frombuffer(file, np.uint8))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"a": np.zeros(2, np.float32)}, "tensor 'b' is missing"),
        (
            {"a": np.zeros(2, np.float32), "b": np.zeros((), np.int64), "c": np.zeros(1)},
            "tensor 'c' is not in the plan",
        ),
        (
            {"a": np.zeros(2, np.float64), "b": np.zeros((), np.int64)},
            "tensor 'a' is float64, the plan says float32",
        ),
        (
            {"a": np.zeros((2, 1), np.float32), "b": np.zeros((), np.int64)},
            r"tensor 'a' has shape \[2, 1\], the plan says \[2\]",
        ),
        # As many bytes as the plan's tensors, and the same names.
        (
            {"a": np.zeros((), np.int64), "b": np.zeros(2, np.float32)},
            "tensor 'a' is int64, the plan says float32",
        ),
    ],
)
def test_other_tensors_than_the_plans_are_named(values: Tensors, complaint: str) -> None:
    layout = Layout(
        [
            TensorSpec(name="a", dtype="float32", shape=[2]),
            TensorSpec(name="b", dtype="int64", shape=[]),
        ]
    )
    with pytest.raises(WrongTensors, match=complaint):
        layout.views(encode(values))


@pytest.mark.parametrize(
    ("specs", "complaint"),
    [
        ([], "at least one tensor"),
        ([TensorSpec(name="a", dtype="float32", shape=[-1])], "unknown dimension"),
        ([TensorSpec(name="a", dtype="float16", shape=[1])], "has dtype 'float16'"),
        ([TensorSpec(name="a", dtype="nonsense", shape=[1])], "has dtype 'nonsense'"),
        ([TensorSpec(name="a", dtype="int8"), TensorSpec(name="a", dtype="int8")], "twice"),
    ],
)
def test_a_layout_of_impossible_specs_is_refused(specs: list[TensorSpec], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Layout(specs)
