"""Random numbers on the device, from the session's seed, in builtin integer arithmetic.

TFLite's own random operations have their seed in the graph, so every device and
every round would draw the same numbers. Here a draw is a function of the seed
that the device gives: the generator of Wichmann and Hill 1982 (algorithm AS
183), three linear congruential generators

    x' = 171 x mod 30269,   y' = 172 y mod 30307,   z' = 170 z mod 30323,

whose sum x/30269 + y/30307 + z/30323 mod 1 is uniform with a period of 6.95e12.
All products fit 32 bits. The n-th number from a state is 171^n x mod 30269 and
so on, so a whole tensor is drawn at once from tables of powers, one table a
dimension, and each random operation of the model draws from a block of its own.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tflite_models.lowering import batch
from tflite_models.lowering.errors import UnsupportedOperation
from tflite_models.lowering.handlers import handles
from tflite_models.lowering.node import Node
from tflite_models.lowering.values import Value, VariableHandle, is_constant

if TYPE_CHECKING:
    from tflite_models.lowering.graph_walk import GraphWalk

#: Multiplier and modulus of the three generators (Wichmann and Hill 1982).
GENERATORS = ((171, 30269), (172, 30307), (170, 30323))

#: Numbers reserved for one draw.
BLOCK = 1 << 20

#: Draws that one operation can make in one batch, as in the steps of a recurrent layer.
DRAWS = 512

#: The generators' state between batches, int32 [3].
STATE = VariableHandle("session/random")

#: The largest entry of a seed.
MAX_SEED = 30000

#: Powers kept in one table; a longer dimension is drawn as two.
_MAX_TABLE = 4096


def advance(state: Value, numbers: int) -> Value:
    """The state after that many numbers; int32 [3] to int32 [3]."""
    factors = np.array([pow(a, numbers, m) for a, m in GENERATORS], np.int32)
    moduli = np.array([m for _, m in GENERATORS], np.int32)
    return tf.math.floormod(state * factors, moduli)


def uniform(state: Value, shape: Sequence[int], rows: int) -> Value:
    """Numbers in [0, 1), row by row from the state on.

    Args:
        state: int32 [3].
        shape: Of the result, float32; its first side may stand for the batch.
        rows: The most first sides there can be.
    """
    sides = [int(side) for side in shape]
    if not sides:
        return tf.reshape(uniform(state, [1], 1), [])
    rest = int(np.prod(sides[1:], dtype=np.int64))
    inner = _factors(rest)
    strides = [rest, *(int(np.prod(inner[i + 1 :])) for i in range(len(inner)))]
    total: Value = None
    for index, (multiplier, modulus) in enumerate(GENERATORS):
        drawn = tf.reshape(state[index : index + 1], [1] * (1 + len(inner)))
        for axis, (side, stride) in enumerate(zip([rows, *inner], strides, strict=True)):
            table = np.array([pow(multiplier, i * stride, modulus) for i in range(side)], np.int32)
            powers = tf.constant(table)
            if axis == 0 and sides[0] != rows:
                powers = tf.gather(powers, tf.range(sides[0]))
            aligned = [-1 if i == axis else 1 for i in range(1 + len(inner))]
            drawn = tf.math.floormod(drawn * tf.reshape(powers, aligned), modulus)
        part = tf.cast(drawn, tf.float32) * np.float32(1.0 / modulus)
        total = part if total is None else total + part
    fraction = total - tf.floor(total)
    return tf.reshape(fraction, [-1, *sides[1:]])


def _factors(size: int) -> list[int]:
    """The size as a product of sides of at most _MAX_TABLE, where it has such divisors."""
    if size <= _MAX_TABLE:
        return [size]
    divisor = max(side for side in range(1, _MAX_TABLE + 1) if size % side == 0)
    return [size // divisor, divisor]


#: Random operations that are drawn from the session's seed, uniform in [0, 1).
UNIFORM = ("RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2")

#: Likewise, standard normal.
NORMAL = ("RandomStandardNormal", "StatelessRandomNormal", "StatelessRandomNormalV2")


class Draws:
    """Gives each random operation of a graph its own numbers in each batch.

    Args:
        sites: The identity of every random operation of the graph (`Node.site`).
        max_batch: The most examples there are in a batch.
    """

    def __init__(self, sites: Iterable[str], max_batch: int) -> None:
        self._sites = {site: index for index, site in enumerate(sorted(sites))}
        self._max_batch = max_batch
        self._made: Counter[str] = Counter()

    @property
    def any(self) -> bool:
        return bool(self._made)

    def begin_batch(self) -> None:
        self._made.clear()

    def advance(self, state: Value) -> Value:
        """The state for the next batch."""
        return advance(state, len(self._sites) * DRAWS * BLOCK)

    def uniform(self, state: Value, node: Node, shape: Value) -> Value:
        """Raises UnsupportedOperation."""
        self._made[node.site] += 1
        if not is_constant(shape) or any(batch.is_generic(int(side)) for side in shape[1:]):
            advice = "only the first dimension of random numbers may be the batch"
        elif self._made[node.site] > DRAWS:
            advice = f"it is repeated more than {DRAWS} times in one batch: draw once, outside"
        else:
            number = self._sites[node.site] * DRAWS + self._made[node.site] - 1
            sides = [int(side) for side in shape]
            rows = batch.times_batch(sides[0], self._max_batch) if sides else 1
            return uniform(advance(state, number * BLOCK), sides, rows)
        raise UnsupportedOperation(op=node.op, node=node.name, advice=advice)


@handles(*UNIFORM)
def _random_uniform(walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value] | None:
    if _initializes(walk, node):
        return None
    return [walk.draws.uniform(_state(walk, node), node, inputs[0])]


@handles(*NORMAL)
def _random_normal(walk: "GraphWalk", node: Node, inputs: list[Value]) -> list[Value] | None:
    """Box and Muller 1958: sqrt(-2 log(1 - u)) cos(2 pi v) is standard normal."""
    if _initializes(walk, node):
        return None
    state = _state(walk, node)
    u = walk.draws.uniform(state, node, inputs[0])
    v = walk.draws.uniform(state, node, inputs[0])
    return [tf.sqrt(-2.0 * tf.math.log(1.0 - u)) * tf.cos(2.0 * np.pi * v)]


def _initializes(walk: "GraphWalk", node: Node) -> bool:
    """Whether an initializer draws, before the checkpoint's weights take its numbers' place."""
    return node.op.startswith("Stateless") and not walk.environment.is_assigned(STATE)


@handles("StatelessRandomGetKeyCounter", "StatelessRandomGetAlg")
def _own_seed(_walk: "GraphWalk", node: Node, _inputs: list[Value]) -> list[Value]:
    """What the model made of its own seed is not used: the device's takes its place."""
    key, counter = np.zeros(1, np.uint64), np.zeros(2, np.uint64)
    return [key, counter] if node.op.endswith("KeyCounter") else [np.int32(1)]


def _state(walk: "GraphWalk", node: Node) -> Value:
    if not walk.environment.is_assigned(STATE):
        raise UnsupportedOperation(
            op=node.op,
            node=node.name,
            advice="devices draw random numbers in training batches only, as for dropout",
        )
    return walk.environment.read(STATE)
