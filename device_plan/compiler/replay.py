"""TFF's client work with the random numbers that a device would draw.

Dropout draws from TensorFlow's own generator, the device graph from the
session's seed (tflite_models.lowering.random_numbers). To compare the two, TFF's
graph is executed by TensorFlow with each random operation replaced by a call
into this module, where numpy draws the same numbers one after another.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import script_ops

from device_plan.compiler.block import Block
from tflite_models.lowering.random_numbers import BLOCK, DRAWS, GENERATORS, NORMAL, UNIFORM
from tflite_models.lowering.source import nodes, random_sites

#: Numbers the replays of this process.
_COUNT = itertools.count()


def draws_random_numbers(block: Block) -> bool:
    return bool(random_sites(block.graph))


class Replay:
    """A block whose random numbers follow from a seed.

    Args:
        block: A client computation over one data set.
    """

    def __init__(self, block: Block) -> None:
        self._block = block
        self._sites = sorted(random_sites(block.graph))
        self._seed: Sequence[int] = ()
        self._batch = -1
        self._drawn: Counter[str] = Counter()
        # TensorFlow's registry refers to functions weakly.
        self._functions: list[Any] = []
        self._graph = tf.compat.v1.GraphDef()
        self._graph.CopyFrom(block.graph)
        for node in nodes(self._graph):
            if node.op in (*UNIFORM, *NORMAL):
                self._replace(node.definition, node.site)
            elif "parallel_iterations" in node.definition.attr:
                # In the order of the steps.
                node.definition.attr["parallel_iterations"].i = 1
        _set_apart(self._graph, f"_replayed_{next(_COUNT)}")
        self._whole = tf.compat.v1.wrap_function(
            lambda: tf.graph_util.import_graph_def(self._graph, name=""), []
        )
        tensor = self._whole.graph.get_tensor_by_name
        self._run = self._whole.prune(
            [tensor(leaf.tensor) for leaf in block.inputs],
            [tensor(leaf.tensor) for leaf in block.outputs],
        )

    def run(
        self, dataset: tf.data.Dataset, values: Mapping[str, np.ndarray], seed: Sequence[int]
    ) -> list[np.ndarray]:
        """The block's results.

        Args:
            values: Its other inputs, by the tensor they are fed to.
            seed: Three integers from 1 to 30000.
        """
        self._seed = [int(number) for number in seed]
        self._batch = -1
        if self._block.initialize:
            self._whole.prune([], self._whole.graph.get_operation_by_name(self._block.initialize))()
        feeds = [
            tf.data.experimental.to_variant(self._counted(dataset))
            if leaf.is_dataset
            else tf.constant(values[leaf.tensor])
            for leaf in self._block.inputs
        ]
        return [np.asarray(result) for result in self._run(*feeds)]

    def _counted(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The same data set, which tells when the next batch begins."""

        def begin(element: np.ndarray) -> np.ndarray:
            self._batch += 1
            self._drawn.clear()
            return element

        def counted(*batch: Any) -> Any:
            structure = batch[0] if len(batch) == 1 else batch
            first, *others = tf.nest.flatten(structure)
            passed = tf.ensure_shape(tf.numpy_function(begin, [first], first.dtype), first.shape)
            return tf.nest.pack_sequence_as(structure, [passed, *others])

        options = tf.data.Options()
        options.autotune.enabled = False
        options.deterministic = True
        return dataset.map(counted, num_parallel_calls=None).with_options(options)

    def _replace(self, definition: Any, site: str) -> None:
        normal = definition.op in NORMAL

        def draw(shape: np.ndarray) -> np.ndarray:
            sides = [int(side) for side in shape]
            size = int(np.prod(sides))
            site_of_all = self._batch * len(self._sites) + self._sites.index(site)
            number = site_of_all * DRAWS + self._drawn[site]
            self._drawn[site] += 2 if normal else 1
            u = wichmann_hill(self._seed, number * BLOCK, size)
            if normal:
                v = wichmann_hill(self._seed, (number + 1) * BLOCK, size)
                u = np.sqrt(-2.0 * np.log(1.0 - u)) * np.cos(2.0 * np.pi * v)
            return u.reshape(sides).astype(np.float32)

        dtype = definition.attr["T"].type
        if definition.op not in ("RandomUniform", "RandomStandardNormal"):
            dtype = definition.attr["Tshape"].type or dtype
        del definition.input[1:]
        self._functions.append(draw)
        definition.op = "PyFunc"
        definition.attr.clear()
        definition.attr["token"].s = script_ops._py_funcs.insert(draw).encode()
        definition.attr["Tin"].list.type.append(dtype)
        definition.attr["Tout"].list.type.append(tf.float32.as_datatype_enum)


def _set_apart(graph: Any, suffix: str) -> None:
    """Gives a graph's functions and variables names of their own.

    TensorFlow knows both by name in the whole process. TFF's original functions,
    which draw at random, may be among them already, and variables of other models.
    """
    library = graph.library
    names = {function.signature.name for function in library.function}
    for function in library.function:
        function.signature.name += suffix
    for gradient in library.gradient:
        gradient.function_name += suffix
        gradient.gradient_func += suffix
    for node in nodes(graph):
        definition = node.definition
        if definition.op in names:
            definition.op += suffix
        if "shared_name" in definition.attr:
            named = definition.attr["shared_name"].s or definition.name.encode()
            definition.attr["shared_name"].s = named + suffix.encode()
        for value in definition.attr.values():
            for referred in (value.func, *value.list.func):
                if referred.name in names:
                    referred.name += suffix


def wichmann_hill(seed: Sequence[int], skip: int, size: int) -> np.ndarray:
    """Numbers of algorithm AS 183 (Wichmann and Hill 1982), float64 [size].

    Args:
        seed: Three integers.
        skip: Numbers left out before the first.
    """
    total = np.zeros(size)
    for start, (multiplier, modulus) in zip(seed, GENERATORS, strict=True):
        # The sequence so far, jumped ahead by its own length, is its continuation.
        states = np.array([start * pow(multiplier, skip, modulus) % modulus], np.int64)
        while len(states) < size:
            jumped = states * pow(multiplier, len(states), modulus) % modulus
            states = np.concatenate([states, jumped])
        total += states[:size] / modulus
    return total % 1.0
