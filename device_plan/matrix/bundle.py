"""Writes cases into a work directory, as `runner` reads them.

cases.json names every array of the two npz files:

    {"format": 1,
     "checkpoint": {tensor: key in checkpoint.npz},
     "cases": [{"name", "computation", "epochs",
                "seed": {} or {"session/seed": key in cases.npz},
                "batches": [{tensor: key}], "reference": {tensor: key}}]}

An array that occurs in several cases is stored once.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from device_plan.matrix.case import SEED, Arrays, Case, Cases
from device_plan.matrix.runner import FORMAT


def write_bundle(directory: Path, cases: Cases) -> None:
    checkpoint, arrays = _Store(), _Store()
    index = {
        "format": FORMAT,
        "checkpoint": checkpoint.put(cases.checkpoint),
        "cases": [_entry(case, arrays) for case in cases.cases],
    }
    checkpoint.write(directory / "checkpoint.npz")
    arrays.write(directory / "cases.npz")
    (directory / "cases.json").write_text(json.dumps(index))


def _entry(case: Case, arrays: "_Store") -> dict[str, object]:
    return {
        "name": case.name,
        "computation": case.computation,
        "epochs": case.epochs,
        "seed": arrays.put({} if case.seed is None else {SEED: case.seed}),
        "batches": [arrays.put(batch) for batch in case.batches],
        "reference": arrays.put(case.reference),
    }


class _Store:
    """Arrays under short keys, equal ones once."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._keys: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def put(self, tensors: Arrays) -> dict[str, str]:
        return {name: self._put(np.asarray(value)) for name, value in tensors.items()}

    def _put(self, array: np.ndarray) -> str:
        content = hashlib.sha256(array.tobytes()).digest()
        key = self._keys.setdefault((array.dtype.name, array.shape, content), f"a{len(self._keys)}")
        self._arrays[key] = array
        return key

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **self._arrays)  # type: ignore[arg-type]
