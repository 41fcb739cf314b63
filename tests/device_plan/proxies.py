"""Proxy data for the small tasks: clients whose rows a linear model can tell apart."""

import numpy as np

from device_plan.proxy_data import ProxyData

FEATURES = 6
CLASSES = 4


def rows(count: int, seed: int) -> dict[str, np.ndarray]:
    """`count` examples; the class is that of the nearest of four fixed points."""
    points = np.eye(CLASSES, FEATURES, dtype=np.float32)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    noise = rng.normal(0, 0.1, (count, FEATURES))
    return {"x": (points[labels] + noise).astype(np.float32), "y": labels.astype(np.int64)}


def data(sizes: tuple[int, ...] = (9, 4, 7, 12, 5), held_out: tuple[int, ...] = (11, 6)):
    """Clients c0, c1, … and held-out clients h0, h1, … with so many examples each."""
    return ProxyData(
        clients={f"c{index}": rows(size, index) for index, size in enumerate(sizes)},
        held_out={f"h{index}": rows(size, 100 + index) for index, size in enumerate(held_out)},
    )
