"""Examples grouped by the device that has them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

#: One device's examples by feature name; the first dimension of each array counts
#: them. A feature in a nested input_spec has its path as its name: "x/item".
Features: TypeAlias = dict[str, np.ndarray]


class WrongDataFile(ValueError):
    """A file of a data set that is missing or does not have the documented form."""


@dataclass(frozen=True, kw_only=True)
class FederatedData:
    """Devices by name: those who train, and others on which a model is evaluated.

    Raises:
        ValueError: one of the two is empty, or a device is in both.
    """

    clients: Mapping[str, Features]
    held_out: Mapping[str, Features]

    def __post_init__(self) -> None:
        if not self.clients or not self.held_out:
            raise ValueError(
                f"federated data needs devices that train and devices held out, "
                f"not {len(self.clients)} and {len(self.held_out)}"
            )
        both = sorted(set(self.clients) & set(self.held_out))
        if both:
            raise ValueError(f"device {both[0]!r} both trains and is held out")


def hold_out(
    devices: Mapping[str, Features], *, fraction: float = 0.2, seed: int = 0
) -> FederatedData:
    """Keeps a random share of the devices, at least one, for evaluation.

    Args:
        devices: At least two.
        fraction: Of devices held out, above 0 and below 1.
        seed: Equal seeds and names give equal choices.

    Raises:
        ValueError: fewer than two devices, or a fraction out of its range.
    """
    if len(devices) < 2:
        raise ValueError(f"{len(devices)} devices cannot be divided: at least two are needed")
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction held out must be above 0 and below 1, not {fraction}")
    count = min(max(1, round(fraction * len(devices))), len(devices) - 1)
    names = sorted(devices)
    chosen = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[:count]}
    return FederatedData(
        clients={name: devices[name] for name in devices if name not in chosen},
        held_out={name: devices[name] for name in devices if name in chosen},
    )


def draw(devices: Mapping[str, Features], rng: np.random.Generator, count: int) -> Features:
    """`count` examples of all devices, with replacement, each example as likely as any other."""
    pooled = pool(devices.values())
    chosen = rng.integers(0, len(next(iter(pooled.values()))), count)
    return {name: array[chosen] for name, array in pooled.items()}


def pool(examples: Iterable[Features]) -> Features:
    """All examples in one, device after device."""
    parts = list(examples)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write_device_files(directory: Path, devices: Mapping[str, Features]) -> list[str]:
    """Writes `device-00000.npz`, ... as `nightshift fleet --data` reads them.

    Args:
        directory: Made if it does not exist.
        devices: In the order of their names' files.

    Returns:
        The devices' names; the first one's examples are in device-00000.npz.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for number, features in enumerate(devices.values()):
        np.savez(directory / f"device-{number:05}.npz", **features)
    return list(devices)


def write_proxy_file(path: Path, data: FederatedData) -> None:
    """Writes an .npz file as `nightshift task simulate --data` reads it.

    Its arrays are named "clients/NAME/FEATURE" and "held_out/NAME/FEATURE".

    Raises:
        ValueError: a device's name has a "/" in it.
    """
    arrays: Features = {}
    for part, devices in (("clients", data.clients), ("held_out", data.held_out)):
        for name, features in devices.items():
            if "/" in name:
                raise ValueError(f"device {name!r} cannot be in the file: its name has a '/'")
            arrays |= {f"{part}/{name}/{feature}": features[feature] for feature in features}
    np.savez(path, **arrays)


def from_client_data(
    client_data: Any, features: Callable[[list[Any]], Features], *, first: int, count: int
) -> dict[str, Features]:
    """Devices of a tff.simulation.datasets.ClientData.

    Args:
        client_data: As tff.simulation.datasets.*.load_data() returns it.
        features: Makes a device's features of its rows, each a dictionary of numpy
            values. A device without examples is left out.
        first, count: Which of the client ids to take.
    """
    devices = {}
    for name in client_data.client_ids[first : first + count]:
        rows = client_data.create_tf_dataset_for_client(name).as_numpy_iterator()
        examples = features(list(rows))
        if len(next(iter(examples.values()))):
            devices[str(name)] = examples
    return devices


def require(path: Path, what: str) -> Path:
    """The path. Raises WrongDataFile, saying what should be there, if it does not exist."""
    if not path.exists():
        raise WrongDataFile(f"{path} does not exist: {what}")
    return path
