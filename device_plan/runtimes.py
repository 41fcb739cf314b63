"""Which variant of a plan a device gets, from the runtime it reports.

A runtime's name is its distribution and version, e.g. "tflite-runtime 2.14.0".
Distributions of one family are the same C++ library: tflite-runtime, tf.lite
(inside TensorFlow) and tensorflow-lite (the Android library) are built from
TensorFlow's source and numbered as it is; ai-edge-litert and litert are its
successor, with a count of its own. A variant that passed its checks on one of
them serves all of that family with the same major and minor version: a patch
release changes no kernel, the next minor one may.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Family = Literal["tflite", "litert"]

FAMILIES: dict[str, Family] = {
    "tflite-runtime": "tflite",
    "tf.lite": "tflite",
    "tensorflow-lite": "tflite",
    "ai-edge-litert": "litert",
    "litert": "litert",
}

#: e.g. "2.14", "2.14.0", "2.17.0-rc1", "2.15.0+nv23.11".
_NAME = re.compile(r"([a-z][a-z.-]{0,31}) ([0-9]{1,4})\.([0-9]{1,4})(?:[.+-][0-9A-Za-z.+-]{0,32})?")


@dataclass(frozen=True, order=True, slots=True)
class RuntimeVersion:
    """What counts of a runtime's name."""

    family: Family
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.family} {self.major}.{self.minor}"


@functools.lru_cache(maxsize=1024)
def parse(name: str) -> RuntimeVersion | None:
    """The family and version of a runtime's name; None if it is none that is known here."""
    found = _NAME.fullmatch(name)
    if found is None or found[1] not in FAMILIES:
        return None
    return RuntimeVersion(FAMILIES[found[1]], int(found[2]), int(found[3]))


def choose(variants: Iterable[tuple[str, Iterable[str]]], reported: str) -> str | None:
    """The variant for a device.

    Args:
        variants: Name and the runtimes on which it passed, the best variant first.
        reported: The device's runtime.

    Returns:
        The name of the first variant that passed on a runtime of the same family
        and version; None if none did, or if what was reported is no runtime's name.
    """
    runtime = parse(reported)
    if runtime is None:
        return None
    for name, passed in variants:
        if any(parse(other) == runtime for other in passed):
            return name
    return None


def summary(passed: Iterable[str]) -> str:
    """Runtimes for people, each family and version once, e.g. "tflite 2.7, litert 2.0"."""
    known = {runtime for name in passed if (runtime := parse(name)) is not None}
    # The family that is in the field for longer comes first.
    ordered = sorted(known, key=lambda r: (r.family != "tflite", r.major, r.minor))
    return ", ".join(map(str, ordered)) or "none"
