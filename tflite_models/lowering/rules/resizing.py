"""Resizing of images: a linear map along height and another along width.

With constant matrices R (rows) and C (columns) that TensorFlow's own operation
gives for the sizes, y = R x C^T for each channel, and so dx = R^T dy C.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tflite_models.lowering.rules.table import rule
from tflite_models.lowering.values import Value, known_sides

#: (height, width, ...) of the result as a tensor.
Sizes = Sequence[int]


@rule("ResizeBicubic")
def bicubic_resizing(
    images: Value,
    size: Value,
    *,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> Value:
    """y = R x C^T; each row of R and C has the cubic weights of four neighbours.

    Args:
        images: [batch, height, width, channels].
        size: The height and width of the result.
    """
    new = known_sides(size)
    maps = _maps(
        tf.raw_ops.ResizeBicubic, images.shape[1:3], new, align_corners, half_pixel_centers
    )
    return _mapped(images, *maps)


@rule("ResizeBilinearGrad")
def bilinear_resizing_gradient(
    dy: Value,
    images: Value,
    *,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> Value:
    """dx = R^T dy C; each row of R and C has the weights of two neighbours."""
    resize = tf.raw_ops.ResizeBilinear
    return _gradient(resize, dy, images.shape[1:3], align_corners, half_pixel_centers)


@rule("ResizeBicubicGrad")
def bicubic_resizing_gradient(
    dy: Value,
    images: Value,
    *,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> Value:
    """dx = R^T dy C; each row of R and C has the cubic weights of four neighbours."""
    resize = tf.raw_ops.ResizeBicubic
    return _gradient(resize, dy, images.shape[1:3], align_corners, half_pixel_centers)


@rule("ResizeNearestNeighborGrad")
def nearest_resizing_gradient(
    dy: Value,
    size: Value,
    *,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> Value:
    """dx = R^T dy C; each row of R and C has one 1: an entry's gradient is the sum over its copies.

    Where each entry has a block of copies of the same size, as UpSampling2D
    makes them, that sum is the mean over the block times the copies.

    Args:
        size: The height and width of the image.
    """
    new, sides = [int(side) for side in dy.shape[1:3]], known_sides(size)
    forward = _maps(tf.raw_ops.ResizeNearestNeighbor, sides, new, align_corners, half_pixel_centers)
    factors = [after // before for before, after in zip(sides, new, strict=True)]
    if all(
        np.array_equal(matrix, np.repeat(np.eye(side), factor, axis=0))
        for matrix, side, factor in zip(forward, sides, factors, strict=True)
    ):
        block = [1, *factors, 1]
        mean = tf.raw_ops.AvgPool(value=dy, ksize=block, strides=block, padding="VALID")
        return mean * float(np.prod(factors))
    return _mapped(dy, *(matrix.T for matrix in forward))


def _gradient(
    resize: Callable[..., Value],
    dy: Value,
    sides: Sizes,
    align_corners: bool,
    half_pixel_centers: bool,
) -> Value:
    """dx = R^T dy C for the map that `resize` is on images of these sides."""
    forward = _maps(resize, sides, dy.shape[1:3], align_corners, half_pixel_centers)
    return _mapped(dy, *(matrix.T for matrix in forward))


def _maps(
    resize: Callable[..., Value],
    before: Sizes,
    after: Sizes,
    align_corners: bool,
    half_pixel_centers: bool,
) -> list[np.ndarray]:
    """For height and width, the float32 matrix [after, before]: the images of unit vectors."""
    maps = []
    for old, new in zip(before, after, strict=True):
        units = np.eye(old, dtype=np.float32)[:, :, None, None]
        with tf.init_scope():
            resized = resize(
                images=units,
                size=[new, 1],
                align_corners=align_corners,
                half_pixel_centers=half_pixel_centers,
            )
            maps.append(resized.numpy()[:, :, 0, 0].T)
    return maps


def _mapped(x: Value, rows: np.ndarray, columns: np.ndarray) -> Value:
    """rows x columns^T for each example and channel."""
    height, width, channels = (int(side) for side in x.shape[1:])
    tall = tf.matmul(rows, tf.reshape(x, [-1, height, width * channels]))
    wide = tf.matmul(columns, tf.reshape(tall, [-1, width, channels]))
    return tf.reshape(wide, [-1, rows.shape[0], columns.shape[0], channels])
