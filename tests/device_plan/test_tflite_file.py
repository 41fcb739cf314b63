"""The small reader of TFLite files against TensorFlow's own schema parser and converter."""

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_plan import tflite_operators
from device_plan.archive import PlanArchive
from device_plan.tflite_file import MalformedGraph, TfliteFile
from tests.device_plan.graphs import convert


@pytest.fixture(scope="module")
def digits_graph(digits_plan: Path) -> bytes:
    return PlanArchive.open(digits_plan).graph


@pytest.fixture(scope="module")
def windowed_graph() -> bytes:
    """A graph whose operations have options away from their defaults, and a loop."""
    import tensorflow as tf

    def step(x, filters, k, labels):
        y = tf.nn.conv2d(x, filters, (1, 3, 2, 1), "SAME", dilations=None)
        z = tf.nn.conv2d(x, filters, 1, "VALID", dilations=(1, 2, 3, 1))
        pooled = tf.nn.max_pool2d(y, (2, 3), (1, 2), "VALID")
        row = tf.gather(pooled, labels, axis=2)
        out = tf.reduce_sum(row, axis=(1, 2), keepdims=True)
        _, looped = tf.while_loop(
            lambda i, _: i < 3, lambda i, v: (i + 1, tf.matmul(v, v)), (tf.constant(0), k)
        )
        return {
            "out": tf.concat([out, out], -1),
            "z": tf.squeeze(tf.reduce_max(z, axis=(1, 2), keepdims=True), [1]),
            "sub": x[:, 1:9:2, ::-1, 0],
            "looped": looped,
        }

    return convert(
        step=(
            step,
            {
                "x": (None, 12, 11, 3),
                "filters": (2, 3, 3, 4),
                "k": (5, 5),
                "labels": ((2,), "int32"),
            },
        )
    )


def schema_model(data: bytes) -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))


@pytest.fixture(params=["digits_graph", "windowed_graph"])
def graph(request: pytest.FixtureRequest) -> bytes:
    return request.getfixturevalue(request.param)


def test_operators_are_those_that_tensorflow_reads(graph: bytes):
    from tensorflow.lite.python import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}
    parsed, model = TfliteFile.from_bytes(graph), schema_model(graph)
    assert len(parsed.subgraphs) == len(model.subgraphs)
    for ours, theirs in zip(parsed.subgraphs, model.subgraphs, strict=True):
        assert list(ours.inputs) == list(theirs.inputs)
        assert list(ours.outputs) == list(theirs.outputs)
        for operator, expected in zip(ours.operators, theirs.operators or [], strict=True):
            code = model.operatorCodes[expected.opcodeIndex]
            assert operator.name == names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            assert operator.version == code.version
            assert not operator.custom
            assert list(operator.inputs) == list(expected.inputs)
            assert list(operator.outputs) == list(expected.outputs)


#: TensorFlow's names of the options that are called otherwise here.
RENAMED = {
    "dilation_w": "dilationWFactor",
    "dilation_h": "dilationHFactor",
    "filter_w": "filterWidth",
    "filter_h": "filterHeight",
    "cond": "condSubgraphIndex",
    "body": "bodySubgraphIndex",
}


def test_options_are_those_that_tensorflow_reads(graph: bytes):
    parsed, model = TfliteFile.from_bytes(graph), schema_model(graph)
    compared = set()
    for ours, theirs in zip(parsed.subgraphs, model.subgraphs, strict=True):
        for operator, expected in zip(ours.operators, theirs.operators or [], strict=True):
            for field, value in operator.options.items():
                first, *rest = field.split("_")
                name = RENAMED.get(field, first + "".join(map(str.capitalize, rest)))
                read = getattr(expected.builtinOptions, name, None)
                read = () if read is None else read
                assert np.array_equal(value, read), (operator, field)
                compared.add((operator.name, field, value))
    assert len(compared) > 10


def test_tensors_are_those_that_tensorflow_reads(graph: bytes):
    from tensorflow.lite.python import schema_py_generated as schema

    kinds = {code: name.lower() for name, code in vars(schema.TensorType).items() if name[0] != "_"}
    parsed, model = TfliteFile.from_bytes(graph), schema_model(graph)
    constants = 0
    for ours, theirs in zip(parsed.subgraphs, model.subgraphs, strict=True):
        for tensor, expected in zip(ours.tensors, theirs.tensors, strict=True):
            declared = expected.shapeSignature
            declared = expected.shape if declared is None else declared
            assert tensor.shape == tuple(declared if declared is not None else ())
            assert tensor.dtype == kinds[expected.type]
            assert tensor.name == expected.name.decode()
            data = model.buffers[expected.buffer].data
            assert (tensor.data is None) == (data is None)
            if tensor.data is not None:
                assert bytes(tensor.data) == bytes(data)
                value = tensor.constant()
                assert value is not None
                assert value.shape == tensor.shape
                constants += 1
    assert constants


def test_signatures_are_those_that_the_runtime_offers(graph: bytes):
    from tflite_runtime.interpreter import Interpreter

    offered = Interpreter(model_content=graph).get_signature_list()
    parsed = TfliteFile.from_bytes(graph)
    assert set(parsed.signatures) == set(offered)
    for name, signature in parsed.signatures.items():
        assert sorted(signature.inputs) == sorted(offered[name]["inputs"])
        assert sorted(signature.outputs) == sorted(offered[name]["outputs"])


def test_the_least_runtime_is_the_one_the_converter_writes(graph: bytes):
    from device_plan.compiler.flatbuffer import TrainingGraph

    # The converter's statement has its own floor of 1.5.0, below all that occur here.
    assert TfliteFile.from_bytes(graph).min_runtime_version() == (
        TrainingGraph(graph).min_runtime_version()
    )


def test_the_least_runtimes_of_all_operations_are_tensorflows():
    import tensorflow as tf
    from tensorflow.lite.python import schema_py_generated as schema

    library = ctypes.CDLL(str(Path(tf.__file__).parent / "libtensorflow_cc.so.2"))
    # tflite::FindMinimumRuntimeVersionForOp[abi:cxx11](tflite::BuiltinOperator, int)
    ask = library["_ZN6tflite30FindMinimumRuntimeVersionForOpB5cxx11ENS_15BuiltinOperatorEi"]
    ask.argtypes, ask.restype = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int], ctypes.c_void_p

    def tensorflows(code: int, version: int) -> str:
        # A std::string is returned in 32 bytes of the caller's: pointer, length, short text.
        string = (ctypes.c_size_t * 4)()
        ask(ctypes.addressof(string), code, version)
        return ctypes.string_at(string[0], string[1]).decode()

    codes = {name: code for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}
    assert tuple(sorted(codes, key=codes.__getitem__)) == tflite_operators.NAMES
    for name, code in codes.items():
        assert tflite_operators.name_of(code) == name
        for version in range(1, 20):
            ours = tflite_operators.first_release(name, version) or ""
            assert ours == tensorflows(code, version), (name, version)


def test_releases_are_ordered_by_number():
    assert tflite_operators.newest(["2.9.0", "2.11.0", "1.14.0"]) == "2.11.0"
    assert tflite_operators.newest([]) == ""


def test_what_tensorflow_2_14_does_not_know_has_no_release():
    assert tflite_operators.name_of(4000) == "operator 4000"
    assert tflite_operators.first_release("operator 4000", 1) is None
    assert tflite_operators.first_release("ADD", 0) is None


def test_a_flex_operation_is_told_from_a_builtin():
    import tensorflow as tf

    graph = convert(step=(lambda x: {"y": tf.linalg.inv(x)}, {"x": (3, 3)}), select_tensorflow=True)
    assert TfliteFile.from_bytes(graph).custom_operators() == ("FlexMatrixInverse",)


@pytest.mark.parametrize("cut", [0, 3, 7, 8, 100, -500, -16])
def test_a_damaged_file_is_one_clear_error(digits_graph: bytes, cut: int):
    with pytest.raises(MalformedGraph, match=r"not a TFLite file|beyond the end"):
        TfliteFile.from_bytes(digits_graph[:cut])


def test_the_reader_needs_no_tensorflow():
    code = "import sys, device_plan.tflite_file; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
