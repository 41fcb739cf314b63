"""Which devices take part in which round, and with which examples: fixed, for both sides.

Digits of scikit-learn, a stretch for each device: uneven counts, of which most
leave a partial last batch of five.
"""

import numpy as np
from sklearn.datasets import load_digits

#: Examples of each device that trains; the plan wants at least five.
TRAINING_DEVICES = (7, 12, 23, 5, 31, 16, 9, 18, 3, 4)

#: Examples of each held-out device.
HELD_OUT_DEVICES = (11, 6, 25, 8)

#: By round, the devices that are selected. Devices 8 and 9 have too few
#: examples and say so, hence four to six of the six contribute.
COHORTS = (
    (0, 1, 2, 3, 4, 5),
    (4, 5, 6, 7, 8, 0),
    (8, 2, 9, 3, 1, 7),
    (6, 7, 0, 4, 2, 1),
    (5, 3, 9, 6, 0, 2),
)

#: Round and device where someone picks the phone up in the middle of the training.
PICKED_UP = ((4, 2),)

COHORT_SIZE = 6
MINIMUM_FRACTION = 0.6

MIN_EXAMPLES = 5
BATCH_SIZE = 5
#: Fewer than the plan's: where a unit's input is within rounding of 0, relu's
#: gradient is 0 on one side and 1 on the other, and each epoch gives that a chance.
EPOCHS = 3

Examples = dict[str, np.ndarray]


def training_examples(device: int) -> Examples:
    return _stretch(sum(TRAINING_DEVICES[:device]), TRAINING_DEVICES[device])


def held_out_examples(device: int) -> Examples:
    before = sum(TRAINING_DEVICES) + sum(HELD_OUT_DEVICES[:device])
    return _stretch(before, HELD_OUT_DEVICES[device])


def contributors(number: int) -> list[int]:
    """The devices whose updates round `number`, from 1, must sum."""
    return [
        device
        for device in COHORTS[number - 1]
        if TRAINING_DEVICES[device] >= MIN_EXAMPLES and (number, device) not in PICKED_UP
    ]


def _stretch(start: int, count: int) -> Examples:
    digits = load_digits()
    # Far apart, so that a device's digits are not those of the data's order.
    order = np.random.default_rng(11).permutation(len(digits.target))[start : start + count]
    return {
        "x": (digits.data[order] / 16.0).astype(np.float32),
        "y": digits.target[order].astype(np.int64),
    }
