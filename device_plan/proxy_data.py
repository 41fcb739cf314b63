"""Data that stands in for the devices' own: simulated clients and their examples.

Bonawitz et al. 2019, §7.1: models are tested in simulation on proxy data,
"similar in shape to the on-device data but drawn from a different distribution".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

#: A client's examples by feature name, oldest first; the first dimension of each
#: array counts them. Features are named as the plan's: keys of a nested
#: input_spec are joined by "/".
ClientExamples: TypeAlias = Mapping[str, np.ndarray]

#: Names of the two parts in an .npz file.
PARTS = ("clients", "held_out")


@dataclass(frozen=True, kw_only=True)
class ProxyData:
    """Simulated clients by name.

    Raises:
        ValueError: a part is empty, or a client's arrays differ in length.
    """

    #: Those who train.
    clients: Mapping[str, ClientExamples]
    #: Those on whom the model is evaluated; they never train.
    held_out: Mapping[str, ClientExamples]

    def __post_init__(self) -> None:
        for part in PARTS:
            clients = getattr(self, part)
            if not isinstance(clients, Mapping) or not clients:
                raise ValueError(
                    f"proxy data: {part} must map at least one client's name to its examples"
                )
            for client, examples in clients.items():
                _check(f"proxy data: {part}, client {client!r}", examples)

    @classmethod
    def from_npz(cls, path: Path) -> "ProxyData":
        """Proxy data from arrays named "clients/NAME/FEATURE" and "held_out/NAME/FEATURE".

        Raises:
            ValueError: not such a file.
            OSError: it cannot be read.
        """
        parts: dict[str, dict[str, dict[str, np.ndarray]]] = {part: {} for part in PARTS}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for name in arrays.files:
                    part, _, rest = name.partition("/")
                    client, _, feature = rest.partition("/")
                    if part not in parts or not client or not feature:
                        raise ValueError(
                            f"array {name!r} should be named clients/NAME/FEATURE "
                            "or held_out/NAME/FEATURE"
                        )
                    parts[part].setdefault(client, {})[feature] = arrays[name]
        except OSError:
            raise
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        except Exception as error:
            # np.load leaves damaged zip files to zipfile, with errors of many kinds.
            raise ValueError(f"{path} is not an .npz file: {error}") from error
        return cls(clients=parts["clients"], held_out=parts["held_out"])


def _check(where: str, examples: ClientExamples) -> None:
    if not isinstance(examples, Mapping) or not examples:
        raise ValueError(f"{where}: examples must be arrays by feature name")
    counts = {}
    for feature, value in examples.items():
        if not isinstance(value, np.ndarray) or value.ndim < 1:
            raise ValueError(f"{where}: feature {feature!r} must be an array of examples")
        counts[feature] = len(value)
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{count} of {feature!r}" for feature, count in counts.items())
        raise ValueError(f"{where}: features differ in their number of examples: {shown}")
