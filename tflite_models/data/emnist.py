"""Handwritten characters by writer, for `tflite_models.emnist`.

Every source gives `x`, float32 [28, 28, 1] with ink 1 and paper 0, and `y`, int64:
0-9 digits, 10-35 upper case, 36-61 lower case letters.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from tflite_models.data import digits
from tflite_models.data.federated_data import (
    Features,
    FederatedData,
    WrongDataFile,
    draw,
    from_client_data,
    hold_out,
    require,
)
from tflite_models.data.label_skew import deal
from tflite_models.emnist import DIGITS, SIDE


def from_leaf(path: Path, *, digits_only: bool = False, seed: int = 0) -> FederatedData:
    """FEMNIST as LEAF's preprocess.sh writes it (Caldas et al. 2018).

    One .json file, or a directory of them such as `data/femnist/data/train`:

        {"users": ["f0001_41", ...], "num_samples": [...],
         "user_data": {"f0001_41": {"x": [[784 pixels], ...], "y": [label, ...]}}}

    Pixels are in [0, 1], row by row, with paper 1 and ink 0 as LEAF has them.

    Args:
        path: The file or directory.
        digits_only: Take labels 0-9 alone; a writer without any is left out.
        seed: Of the choice of held-out writers, a fifth.

    Raises:
        WrongDataFile: a file is missing or has another form; the message names it.
    """
    require(path, "give LEAF's .json file or a directory of such files")
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise WrongDataFile(f"{path} holds no .json file: run LEAF's data/femnist/preprocess.sh")
    writers: dict[str, Features] = {}
    for file in files:
        writers |= _leaf_writers(file, DIGITS if digits_only else None)
    if len(writers) < 2:
        raise WrongDataFile(f"{path} has {len(writers)} writers; at least two are needed")
    return hold_out(writers, seed=seed)


def _leaf_writers(file: Path, classes: int | None) -> dict[str, Features]:
    try:
        users = json.loads(file.read_text())["user_data"].items()
        writers = {}
        for user, examples in users:
            labels = np.array(examples["y"], np.int64)
            paper = np.array(examples["x"], np.float32).reshape(len(labels), SIDE, SIDE, 1)
            kept = labels < (classes or labels.max(initial=0) + 1)
            if kept.any():
                writers[user] = Features(x=1.0 - paper[kept], y=labels[kept])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongDataFile(
            f"{file} is not LEAF's FEMNIST: it needs user_data.WRITER.x with {SIDE * SIDE} pixels "
            f"an image and user_data.WRITER.y ({type(error).__name__}: {error})"
        ) from error
    return writers


def from_tff(
    *,
    writers: int = 200,
    held_out: int = 50,
    digits_only: bool = True,
    cache_dir: str | None = None,
) -> FederatedData:
    """TFF's federated EMNIST: downloads some 170 MB at the first call.

    The writers held out are others than those who train.
    """
    from tensorflow_federated import simulation

    train, _ = simulation.datasets.emnist.load_data(digits_only, cache_dir)
    return FederatedData(
        clients=from_client_data(train, tff_features, first=0, count=writers),
        held_out=from_client_data(train, tff_features, first=writers, count=held_out),
    )


def tff_features(rows: list[Any]) -> Features:
    """A writer's features of the rows of TFF's data set, whose paper is 1 and ink 0."""
    pixels = np.array([row["pixels"] for row in rows], np.float32)
    return Features(
        x=1.0 - pixels.reshape(-1, SIDE, SIDE, 1),
        y=np.array([row["label"] for row in rows], np.int64).reshape(-1),
    )


def synthetic(*, writers: int = 50, concentration: float = 1.0, seed: int = 0) -> FederatedData:
    """scikit-learn's digits written large, each writer with a hand of their own.

    A scan of 8 x 8 pixels is enlarged to 28 x 28. A writer's hand is a slant, a
    rotation, a width, a height and a weight of the pen, and a mixture of digits
    that occur (see `tflite_models.data.label_skew.deal`). Ten classes.

    Args:
        writers: From 2 to 1,797; a fifth of them is held out.
        concentration: The smaller, the fewer kinds of digits a writer has.
        seed: Equal seeds give equal writers.
    """
    scans, labels = digits.load()
    rng = np.random.default_rng(seed)
    hands = deal(labels, devices=writers, concentration=concentration, rng=rng)
    written = {
        f"writer-{number:04}": Features(x=_write(scans[hand], rng), y=labels[hand])
        for number, hand in enumerate(hands)
    }
    return hold_out(written, seed=seed)


def _write(scans: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One writer's images, float32 [n, 28, 28, 1], of scans [n, 8, 8]."""
    from scipy.ndimage import affine_transform

    angle, slant = rng.normal(0.0, 0.12), rng.normal(0.0, 0.25)
    height, width = rng.uniform(2.4, 3.2), rng.uniform(2.0, 3.0)
    pen = rng.uniform(0.6, 1.4)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # From pixels of the image, about its centre, to pixels of the scan.
    backward = np.diag([1 / height, 1 / width]) @ turn @ np.array([[1.0, 0.0], [slant, 1.0]])
    offset = np.full(2, 3.5) - backward @ np.full(2, (SIDE - 1) / 2)
    images = [
        affine_transform(scan, backward, offset, output_shape=(SIDE, SIDE), order=1)
        for scan in scans
    ]
    ink: np.ndarray = np.clip(np.stack(images), 0.0, 1.0) ** pen
    return ink.astype(np.float32)[..., None]


def sample(rng: np.random.Generator, count: int) -> Features:
    """Digits of several synthetic writers, for a task's sample_fn."""
    return draw(_writers(), rng, count)


@functools.cache
def _writers() -> dict[str, Features]:
    return dict(synthetic().clients)
