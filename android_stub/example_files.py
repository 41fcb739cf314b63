"""Examples for virtual devices, as numpy archives.

Either a directory with one file a device, `device-00000.npz`,
`device-00001.npz`, …, or a single `.npz` file whose examples are dealt out in
turn (example i goes to device i modulo the number of devices). In each file
the arrays have the names of the plan's example tensors, and their first
dimension counts the examples.
"""

import zipfile
from pathlib import Path

import numpy as np


class WrongExampleFile(ValueError):
    """A file that is missing or is not a numpy archive of examples."""


class ExampleFiles:
    """The examples of a fleet's devices.

    Raises:
        WrongExampleFile: `path` is neither a directory nor a file.
    """

    def __init__(self, path: Path, *, devices: int) -> None:
        self._path = path
        self._devices = devices
        self._single: dict[str, np.ndarray] | None = None
        if path.is_file():
            self._single = _load(path)
        elif not path.is_dir():
            raise WrongExampleFile(
                f"{path} does not exist: give a directory of device-00000.npz, … or one .npz file"
            )

    def check(self) -> None:
        """Raises WrongExampleFile, naming the first device that has no file."""
        if self._single is not None:
            return
        for index in range(self._devices):
            if not self._file(index).is_file():
                raise WrongExampleFile(
                    f"{self._file(index)} is missing: {self._devices} devices need files up to "
                    f"{self._file(self._devices - 1).name}"
                )
        _load(self._file(0))

    def load(self, index: int) -> dict[str, np.ndarray]:
        """One device's arrays. Raises WrongExampleFile."""
        if self._single is not None:
            return {name: array[index :: self._devices] for name, array in self._single.items()}
        return _load(self._file(index))

    def _file(self, index: int) -> Path:
        return self._path / f"device-{index:05d}.npz"


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise WrongExampleFile(f"{path} is not a numpy archive: {error}") from error
    if not arrays or any(array.ndim == 0 for array in arrays.values()):
        raise WrongExampleFile(f"{path} must hold arrays whose first dimension counts examples")
    return arrays
