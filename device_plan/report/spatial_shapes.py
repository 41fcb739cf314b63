"""Shapes of what slides over, splits or scales images: convolutions, pooling, blocks."""

import math

import numpy as np

from device_plan.report.call import Call
from device_plan.report.value import Shape


def windows(side: int, window: int, stride: int, dilation: int, *, same: bool) -> int:
    """How many windows fit along a side: ceil(side / stride), or only whole windows."""
    if same:
        return -(-side // stride)
    return max(0, -(-(side - (window - 1) * dilation) // stride))


def space_to_depth(call: Call) -> list[Shape]:
    n, height, width, depth = call.shape(0)
    block = call.option("block_size")
    return [(n, height // block, width // block, depth * block * block)]


def depth_to_space(call: Call) -> list[Shape]:
    n, height, width, depth = call.shape(0)
    block = call.option("block_size")
    return [(n, height * block, width * block, depth // (block * block))]


def space_to_batch(call: Call) -> list[Shape]:
    n, *sides = call.shape(0)
    blocks, pads = call.ints(1), np.reshape(call.ints(2), (-1, 2))
    padded = [int(side + sum(pad)) for side, pad in zip(sides, pads, strict=False)]
    inner = tuple(side // block for side, block in zip(padded, blocks, strict=True))
    return [(n * math.prod(blocks), *inner, *sides[len(blocks) :])]


def batch_to_space(call: Call) -> list[Shape]:
    n, *sides = call.shape(0)
    blocks, crops = call.ints(1), np.reshape(call.ints(2), (-1, 2))
    inner = tuple(
        int(side * block - sum(crop))
        for side, block, crop in zip(sides, blocks, crops, strict=False)
    )
    return [(n // math.prod(blocks), *inner, *sides[len(blocks) :])]


def resize(call: Call) -> list[Shape]:
    n, _, _, depth = call.shape(0)
    height, width = call.ints(1)
    return [(n, height, width, depth)]


def _strides(call: Call, height: int, width: int) -> Shape:
    same = call.option("padding") == 0
    _, rows, columns, _ = call.shape(0)
    dilation_h = int(call.operator.options.get("dilation_h", 1))  # type: ignore[arg-type]
    dilation_w = int(call.operator.options.get("dilation_w", 1))  # type: ignore[arg-type]
    return (
        windows(rows, height, call.option("stride_h"), dilation_h, same=same),
        windows(columns, width, call.option("stride_w"), dilation_w, same=same),
    )


def conv_2d(call: Call) -> list[Shape]:
    outputs, height, width, _ = call.shape(1)
    return [(call.shape(0)[0], *_strides(call, height, width), outputs)]


def depthwise_conv_2d(call: Call) -> list[Shape]:
    _, height, width, outputs = call.shape(1)
    return [(call.shape(0)[0], *_strides(call, height, width), outputs)]


def conv_3d(call: Call) -> list[Shape]:
    n, *sides, _ = call.shape(0)
    *window, _, outputs = call.shape(1)
    spatial = tuple(
        windows(
            side,
            extent,
            call.option(f"stride_{axis}"),
            call.option(f"dilation_{axis}"),
            same=call.option("padding") == 0,
        )
        for side, extent, axis in zip(sides, window, "dhw", strict=True)
    )
    return [(n, *spatial, outputs)]


def pool(call: Call) -> list[Shape]:
    n, _, _, depth = call.shape(0)
    return [(n, *_strides(call, call.option("filter_h"), call.option("filter_w")), depth)]
