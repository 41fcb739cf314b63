"""Substitutions for old runtimes."""

from tflite_models.lowering.rules.table import Rule

LEGACY: dict[str, Rule] = {}
