"""A graph that ends the process of its runtime is a failed check, not the end of the build."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from device_plan.commands import plan
from tests.house import ROOT

DIGITS = ROOT / "examples" / "digits_task.py"


def calling_itself(data: bytes) -> bytes:
    """The graph whose `batch` ends with a conditional that executes `batch`, without end."""
    from tensorflow.lite.python import schema_py_generated as schema

    from device_plan.compiler.flatbuffer import EditableGraph

    graph = EditableGraph(data)
    model = graph.model
    (place,) = [d.subgraphIndex for d in model.signatureDefs if d.signatureKey == b"batch"]
    batch = model.subgraphs[place]

    def tensor(like: Any) -> int:
        batch.tensors.append(like)
        return len(batch.tensors) - 1

    always = schema.TensorT()
    always.name, always.shape, always.type = b"always", [], schema.TensorType.BOOL
    always.buffer = len(model.buffers)
    model.buffers.append(schema.BufferT())
    model.buffers[-1].data = [1]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.IF
    code.version = 1
    model.operatorCodes.append(code)
    call = schema.OperatorT()
    call.opcodeIndex = len(model.operatorCodes) - 1
    call.inputs = [tensor(always), *batch.inputs]
    call.outputs = [tensor(copy.copy(batch.tensors[output])) for output in batch.outputs]
    call.builtinOptionsType = schema.BuiltinOptions.IfOptions
    call.builtinOptions = schema.IfOptionsT()
    call.builtinOptions.thenSubgraphIndex = call.builtinOptions.elseSubgraphIndex = place
    batch.operators.append(call)
    return graph.to_bytes()


def test_a_graph_that_crashes_its_runtime_exits_with_1_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from device_plan.compiler import build

    def crashing(*blocks: Any, **options: Any) -> Any:
        built = made(*blocks, **options)
        return replace(built, data=calling_itself(built.data))

    made = build.build_device_graph
    monkeypatch.setattr(build, "build_device_graph", crashing)
    output = tmp_path / "digits.plan"
    result = CliRunner().invoke(plan, ["build", str(DIGITS), "-o", str(output)])
    assert result.exit_code == 1, result.output
    assert "the graph does not run on tflite-runtime" in result.output
    assert "crashes (SIGSEGV)" in result.output
    assert not output.exists()
