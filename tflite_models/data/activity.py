"""Accelerometer windows by person, for `tflite_models.activity`.

Every source gives `x`, float32 [128, 3], readings at 50 Hz of three axes in g,
gravity included, and `y`, int64, an index in `activity.ACTIVITIES`.
"""

import functools
from pathlib import Path

import numpy as np

from tflite_models.activity import ACTIVITIES, AXES, RATE_HZ, READINGS
from tflite_models.data.federated_data import (
    Features,
    FederatedData,
    WrongDataFile,
    draw,
    hold_out,
    require,
)


def from_uci_har(directory: Path) -> FederatedData:
    """The unpacked "UCI HAR Dataset" (Anguita et al. 2013); a device is a subject.

    Of its two parts, `train` and `test`, each needs

        PART/subject_PART.txt                           a subject's number a line
        PART/y_PART.txt                                 an activity a line, from 1
        PART/Inertial Signals/total_acc_x_PART.txt      128 readings in g a line,
                                                        and so for y and z

    The subjects of `test` are held out, as the data set's authors divided them.

    Raises:
        WrongDataFile: a file is missing or has another form; the message names it.
    """
    return FederatedData(clients=_part(directory, "train"), held_out=_part(directory, "test"))


def _part(directory: Path, part: str) -> dict[str, Features]:
    folder = directory / part
    labels = _numbers(folder / f"y_{part}.txt", 1)[:, 0].astype(np.int64) - 1
    subjects = _numbers(folder / f"subject_{part}.txt", 1)[:, 0].astype(np.int64)
    axes = [
        _numbers(folder / "Inertial Signals" / f"total_acc_{axis}_{part}.txt", READINGS)
        for axis in "xyz"
    ]
    lengths = {len(array) for array in (labels, subjects, *axes)}
    if len(lengths) > 1:
        raise WrongDataFile(f"{folder}: its files differ in their number of lines: {lengths}")
    if not ((labels >= 0) & (labels < len(ACTIVITIES))).all():
        raise WrongDataFile(f"{folder}/y_{part}.txt: labels must be from 1 to {len(ACTIVITIES)}")
    windows = np.stack(axes, axis=-1).astype(np.float32)
    return {
        f"subject-{subject:02}": Features(
            x=windows[subjects == subject], y=labels[subjects == subject]
        )
        for subject in sorted(set(subjects.tolist()))
    }


def _numbers(file: Path, columns: int) -> np.ndarray:
    require(file, "give the directory of the unpacked UCI HAR Dataset")
    try:
        table = np.loadtxt(file, ndmin=2)
    except ValueError as error:
        raise WrongDataFile(f"{file} is no table of numbers: {error}") from error
    if table.shape[1] != columns:
        raise WrongDataFile(f"{file} has {table.shape[1]} numbers a line, not {columns}")
    return table


#: How `synthetic` people move: steps a second, and the amplitude in g along gravity,
#: forward and sideways. Without steps they only tremble.
STEPS_HZ = (1.9, 1.5, 2.2, 0.0, 0.0, 0.0)
AMPLITUDES_G = (
    (0.30, 0.15, 0.10),
    (0.22, 0.25, 0.12),
    (0.50, 0.20, 0.15),
    (0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0),
)
#: Direction of gravity in the phone's axes: upright while on one's feet, tilted when
#: sitting, across when lying.
GRAVITY_G = (
    (1.0, 0.0, 0.0),
    (0.97, 0.25, 0.0),
    (0.98, -0.2, 0.0),
    (0.6, 0.0, 0.8),
    (1.0, 0.0, 0.1),
    (0.0, 0.6, 0.8),
)


def synthetic(
    *, people: int = 30, windows: int = 40, concentration: float = 1.0, seed: int = 0
) -> FederatedData:
    """Sums of sinusoids: gravity, steps with their harmonic, and noise.

    A person has a vigour that multiplies every amplitude, a cadence that multiplies
    the steps a second, a way to wear the phone (a small rotation), and a mixture of
    activities from a symmetric Dirichlet distribution.

    Args:
        people: At least 2; a fifth of them is held out.
        windows: Of each person.
        concentration: The smaller, the fewer activities a person has.
        seed: Equal seeds give equal people.
    """
    rng = np.random.default_rng(seed)
    devices = {}
    for person in range(people):
        mixture = rng.dirichlet(np.full(len(ACTIVITIES), concentration))
        labels = rng.choice(len(ACTIVITIES), size=windows, p=mixture)
        devices[f"person-{person:04}"] = Features(x=_windows(labels, rng), y=labels)
    return hold_out(devices, seed=seed)


def _windows(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One person's windows, float32 [n, 128, 3], of activities [n]."""
    vigour, cadence = rng.lognormal(0.0, 0.25), rng.normal(1.0, 0.06)
    worn = _rotation(rng.normal(0.0, 0.15, AXES))
    time = np.arange(READINGS)[None, :, None] / RATE_HZ
    steps = 2 * np.pi * cadence * np.array(STEPS_HZ)[labels][:, None, None] * time
    amplitude = vigour * np.array(AMPLITUDES_G)[labels][:, None, :]
    phase = rng.uniform(0, 2 * np.pi, (len(labels), 1, AXES))
    movement = amplitude * (np.sin(steps + phase) + 0.4 * np.sin(2 * steps + 2 * phase))
    noise = rng.normal(0.0, 0.03, (len(labels), READINGS, AXES))
    gravity = np.array(GRAVITY_G)[labels][:, None, :]
    readings: np.ndarray = (gravity + movement) @ worn.T + noise
    return readings.astype(np.float32)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotations about the three axes one after another, float64 [3, 3]; angles in radians."""
    product = np.eye(AXES)
    for axis, angle in enumerate(angles):
        first, second = [other for other in range(AXES) if other != axis]
        turn = np.eye(AXES)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        product = product @ turn
    return product


def sample(rng: np.random.Generator, count: int) -> Features:
    """Windows of several synthetic people, for a task's sample_fn."""
    return draw(_people(), rng, count)


@functools.cache
def _people() -> dict[str, Features]:
    return dict(synthetic().clients)
