"""Operations written with TFLite builtins, by family."""

from tflite_models.lowering.rules import (
    activations,
    arithmetic,
    convolution,
    depthwise,
    losses,
    many_axes,
    normalization,
    pooling,
    products,
    refusals,
    resizing,
    segments,
    slicing,
)
from tflite_models.lowering.rules.table import REFUSED, RULES, Rule

__all__ = [
    "REFUSED",
    "RULES",
    "Rule",
    "activations",
    "arithmetic",
    "convolution",
    "depthwise",
    "losses",
    "many_axes",
    "normalization",
    "pooling",
    "products",
    "refusals",
    "resizing",
    "segments",
    "slicing",
]
