"""Search results that people tapped or not, for `tflite_models.ranking`.

Every source gives `x/item`, int32: the bucket of the item's name, `x/numbers`,
float32 [8] in the order of `ranking.NUMBERS`, and `y`, float32 [1]: 1 if the item was
tapped.
"""

import csv
import functools
import zlib
from pathlib import Path

import numpy as np

from tflite_models.data.federated_data import (
    Features,
    FederatedData,
    WrongDataFile,
    draw,
    hold_out,
    require,
)
from tflite_models.ranking import BUCKETS, NUMBERS

#: The columns of a CSV file, in any order; others are ignored.
COLUMNS = ("device", "item", *NUMBERS, "tapped")


def bucket(name: str) -> int:
    """The id of an item: the CRC-32 of its UTF-8 name (java.util.zip.CRC32) modulo BUCKETS."""
    return zlib.crc32(name.encode("utf-8")) % BUCKETS


def from_csv(path: Path, *, seed: int = 0) -> FederatedData:
    """A UTF-8 file with a header line that names at least COLUMNS, and one shown item a line.

    `device` is any text that is the same for all lines of a device, `item` the item's
    name, `tapped` 0 or 1, all others numbers.

    Args:
        path: The file.
        seed: Of the choice of held-out devices, a fifth.

    Raises:
        WrongDataFile: a column is missing, or a value cannot be used; the message
            names the line.
    """
    require(path, "give a .csv file with the columns " + ", ".join(COLUMNS))
    rows: dict[str, list[tuple[int, list[float], float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise WrongDataFile(f"{path} has no column {missing[0]!r}; it needs {COLUMNS}")
        for row in reader:
            try:
                numbers = [float(row[name]) for name in NUMBERS]
                tapped = {"0": 0.0, "1": 1.0}[row["tapped"].strip()]
                if not np.isfinite(numbers).all():
                    raise ValueError("a number is not finite")
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise WrongDataFile(
                    f"{path}, line {reader.line_num}: needs numbers, and tapped 0 or 1 ({error})"
                ) from error
            rows.setdefault(row["device"], []).append((bucket(row["item"]), numbers, tapped))
    if len(rows) < 2:
        raise WrongDataFile(f"{path} has {len(rows)} devices; at least two are needed")
    devices = {device: _features(*zip(*shown, strict=True)) for device, shown in rows.items()}
    return hold_out(devices, seed=seed)


def _features(items: object, numbers: object, tapped: object) -> Features:
    return {
        "x/item": np.array(items, np.int32),
        "x/numbers": np.array(numbers, np.float32).reshape(-1, len(NUMBERS)),
        "y": np.array(tapped, np.float32).reshape(-1, 1),
    }


#: Of the hidden logistic model that taps in `synthetic`: what a person goes by.
TASTE = (3.0, 1.5, 1.5, 1.0, 1.5, 1.0, 0.0, 0.0)
#: Different items that exist in `synthetic`.
ITEMS = 200


def synthetic(*, people: int = 60, shown: int = 100, seed: int = 0) -> FederatedData:
    """Taps from a hidden logistic model with habits of each person.

    logit = TASTE . numbers + popularity of the item + the person's own bias - 4.5, and
    y = 1 with probability sigma(logit). Popularity is normal with deviation 1, the
    bias with deviation 0.7. Each person sees items of their own mixture and at their
    own hours.

    Args:
        people: At least 2; a fifth of them is held out.
        shown: Items shown to each.
        seed: Equal seeds give equal people.
    """
    rng = np.random.default_rng(seed)
    names = [f"item {number}" for number in range(ITEMS)]
    popularity = rng.normal(0.0, 1.0, ITEMS)
    devices = {}
    for person in range(people):
        items = rng.choice(ITEMS, size=shown, p=rng.dirichlet(np.full(ITEMS, 0.1)))
        numbers = _shown(rng, shown, hour=rng.uniform(0, 24))
        logit = numbers @ np.array(TASTE) + popularity[items] + rng.normal(0.0, 0.7) - 4.5
        tapped = rng.random(shown) < 1 / (1 + np.exp(-logit))
        buckets = [bucket(names[item]) for item in items]
        devices[f"person-{person:04}"] = _features(buckets, numbers, tapped)
    return hold_out(devices, seed=seed)


def _shown(rng: np.random.Generator, count: int, hour: float) -> np.ndarray:
    """Plausible numbers, float64 [count, 8], of items shown around an hour of the day."""
    match = rng.beta(1.5, 1.5, count)
    week = rng.poisson(rng.gamma(1.0, 3.0, count))
    month = week + rng.poisson(rng.gamma(1.0, 8.0, count))
    angle = 2 * np.pi * (hour + rng.normal(0, 3, count)) / 24
    return np.stack(
        [
            match,
            (rng.random(count) < match**2).astype(np.float64),
            np.log1p(week) / 5,
            np.log1p(month) / 5,
            np.exp(-rng.exponential(10, count) / 7),
            1 / rng.integers(1, 9, count),
            np.sin(angle),
            np.cos(angle),
        ],
        axis=1,
    )


def sample(rng: np.random.Generator, count: int) -> Features:
    """Items shown to several synthetic people, for a task's sample_fn."""
    return draw(_people(), rng, count)


@functools.cache
def _people() -> dict[str, Features]:
    return dict(synthetic().clients)
