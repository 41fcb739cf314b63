"""Operations written with TFLite builtins, by family."""

from tflite_models.lowering.rules import (
    activations,
    arithmetic,
    convolution,
    losses,
    normalization,
    products,
)
from tflite_models.lowering.rules.table import REFUSED, RULES, Rule, refuse

__all__ = [
    "REFUSED",
    "RULES",
    "Rule",
    "activations",
    "arithmetic",
    "convolution",
    "losses",
    "normalization",
    "products",
]

refuse(
    "RandomUniform",
    "RandomStandardNormal",
    "RandomUniformInt",
    "TruncatedNormal",
    "StatelessRandomUniform",
    "StatelessRandomUniformV2",
    "StatelessRandomNormal",
    "StatelessRandomNormalV2",
    "StatelessTruncatedNormal",
    "StatelessTruncatedNormalV2",
    "StatelessRandomGetKeyCounter",
    "StatelessMultinomial",
    "Multinomial",
    "RandomShuffle",
    advice="random numbers on the device are not supported yet: leave out dropout and noise layers",
)
refuse(
    "While",
    "StatelessWhile",
    advice="loops whose length depends on the data are not supported: use a fixed length",
)
refuse(
    "LookupTableFindV2",
    "StringToHashBucketFast",
    "StringSplitV2",
    advice="strings are not supported: give the model numbers, looked up in the app",
)
