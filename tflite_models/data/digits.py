"""scikit-learn's scans of handwritten digits, for `tflite_models.digits`.

1,797 real scans of 8 x 8 pixels (Alpaydin and Kaynak 1998, the test set of the UCI
ML hand-written digits data), which come inside scikit-learn's wheel.
"""

import functools

import numpy as np

from tflite_models.data.federated_data import Features, FederatedData, draw, hold_out
from tflite_models.data.label_skew import deal


def scans(*, devices: int = 60, concentration: float = 0.5, seed: int = 0) -> FederatedData:
    """Each scan on exactly one device: `x`, float32 [64] in [0, 1], and `y`, int64.

    Args:
        devices: From 2 to 1,797; a fifth of them is held out.
        concentration: See `tflite_models.data.label_skew.deal`.
        seed: Equal seeds give equal devices.
    """
    pixels, labels = load()
    rng = np.random.default_rng(seed)
    hands = deal(labels, devices=devices, concentration=concentration, rng=rng)
    dealt = {
        f"person-{number:04}": Features(x=pixels[hand].reshape(-1, 64), y=labels[hand])
        for number, hand in enumerate(hands)
    }
    return hold_out(dealt, seed=seed)


@functools.cache
def load() -> tuple[np.ndarray, np.ndarray]:
    """The scans, float32 [1797, 8, 8] in [0, 1] with ink 1, and their digits, int64 [1797]."""
    # scikit-learn takes a second to import.
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target.astype(np.int64)


def sample(rng: np.random.Generator, count: int) -> Features:
    """Scans of several people, for a task's sample_fn."""
    return draw(_people(), rng, count)


@functools.cache
def _people() -> dict[str, Features]:
    return dict(scans().clients)
