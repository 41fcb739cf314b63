"""scikit-learn's handwritten digits, dealt out to devices unevenly.

1,797 real scans of 8 x 8 pixels (Alpaydin and Kaynak 1998, the test set of the
UCI ML hand-written digits data), which come inside scikit-learn's wheel.
"""

from pathlib import Path

import numpy as np


def write_device_files(
    directory: Path, *, devices: int, concentration: float, seed: int
) -> list[int]:
    """Writes `device-00000.npz`, … with the arrays x and y of each device's own examples.

    Each device draws its own mixture of the ten digits from a symmetric
    Dirichlet distribution (Hsu et al. 2019, §2), so the smaller the
    concentration, the fewer kinds of digits a device has. Every scan goes to
    exactly one device.

    Args:
        directory: Made if it does not exist.
        devices: At least one, at most one a scan.
        concentration: The Dirichlet parameter, above 0.
        seed: Equal seeds give equal files.

    Returns:
        The number of examples of each device.
    """
    # scikit-learn takes a second to import; only the demo pays for it.
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.data / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    sizes = []
    for number, chosen in enumerate(_deal(labels, devices, concentration, rng)):
        np.savez(directory / f"device-{number:05}.npz", x=pixels[chosen], y=labels[chosen])
        sizes.append(len(chosen))
    return sizes


def _deal(
    labels: np.ndarray, devices: int, concentration: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Index arrays, one a device, that partition the examples."""
    kinds = int(labels.max()) + 1
    piles = [list(rng.permutation(np.flatnonzero(labels == kind))) for kind in range(kinds)]
    mixtures = rng.dirichlet(np.full(kinds, concentration), size=devices)
    hands: list[list[int]] = [[] for _ in range(devices)]
    # Dealt round by round, like cards, so that hands differ by at most one and
    # no device is left with the remains of every pile.
    for turn in range(len(labels)):
        device = turn % devices
        weights = mixtures[device] * np.array([len(pile) > 0 for pile in piles])
        if weights.sum() < 1e-9:
            weights = np.array([float(len(pile)) for pile in piles])
        kind = rng.choice(kinds, p=weights / weights.sum())
        hands[device].append(piles[kind].pop())
    return [np.array(hand, dtype=np.int64) for hand in hands]
