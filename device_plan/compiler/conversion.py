"""TensorFlow's TFLite converter, whose complaints are turned into one sentence."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from device_plan.task_file import InvalidTask
from tflite_models.lowering import UnsupportedOperation


def convert(concrete: Mapping[str, Any], origins: Mapping[str, Sequence[str]]) -> bytes:
    """The TFLite file of functions, builtin operations only.

    Args:
        concrete: The concrete functions, by signature.
        origins: For each kind of operation, the author's nodes that caused it.

    Raises:
        InvalidTask: an operation has no builtin form; the author's layer is named.
    """
    with tempfile.TemporaryDirectory() as directory:
        # A module with the functions in it would be saved and loaded with all of them twice.
        tf.saved_model.save(tf.Module(), directory, signatures=dict(concrete))
        converter = tf.lite.TFLiteConverter.from_saved_model(
            directory, signature_keys=list(concrete)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        # It differs between two conversions of the same graph.
        converter.exclude_conversion_metadata = True
        try:
            with _silenced():
                return bytes(converter.convert())
        except Exception as error:
            raise InvalidTask(_complaint(str(error), origins)) from error


def _complaint(message: str, origins: Mapping[str, Any]) -> str:
    """The converter's error as a sentence that names the author's layer."""
    listed = re.search(r"(?:Flex|Custom) ops: (\w+)", message) or re.search(
        r"\btf\.(\w+)\(", message
    )
    if not listed:
        last = message.strip().splitlines()[-1] if message.strip() else "no message"
        return f"the graph cannot be converted to TFLite: {last[:400]}"
    op = listed.group(1)
    nodes = origins.get(op) or [""]
    return "the model cannot be lowered: " + str(
        UnsupportedOperation(
            op=op,
            node=nodes[0],
            advice="docs/layers.md lists the layers, losses and metrics that have one",
        )
    )


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """The converter writes each complaint to the process's standard error, besides raising it."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
