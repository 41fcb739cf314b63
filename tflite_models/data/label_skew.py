"""Dealing a pile of labelled examples out to devices that differ in their labels."""

import numpy as np


def deal(
    labels: np.ndarray, *, devices: int, concentration: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Partitions examples so that each device has its own mixture of labels.

    A device draws its mixture from a symmetric Dirichlet distribution (Hsu et al.
    2019, "Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification", section 2): the smaller the concentration, the fewer labels it
    sees. Then the devices take turns, and each takes an example of a label drawn
    from its mixture, among labels that are not used up.

    Args:
        labels: int [n], from 0.
        devices: From 1 to n.
        concentration: Above 0.
        rng: Its state decides everything.

    Returns:
        One int64 array of indices a device, each index in exactly one of them;
        their lengths differ by at most one.

    Raises:
        ValueError: more devices than examples, or a value out of its range.
    """
    if not 1 <= devices <= len(labels):
        raise ValueError(f"{len(labels)} examples cannot be dealt to {devices} devices")
    if not concentration > 0:
        raise ValueError(f"the concentration must be above 0, not {concentration}")
    kinds = int(labels.max()) + 1
    piles = [rng.permutation(np.flatnonzero(labels == kind)).tolist() for kind in range(kinds)]
    mixtures = rng.dirichlet(np.full(kinds, concentration), size=devices)
    hands: list[list[int]] = [[] for _ in range(devices)]
    left = np.array([len(pile) for pile in piles], dtype=np.float64)
    for turn in range(len(labels)):
        device = turn % devices
        wish = mixtures[device] * (left > 0)
        # Once a device's labels are used up it takes what there is.
        weights = wish if wish.sum() > 1e-12 else left
        kind = int(rng.choice(kinds, p=weights / weights.sum()))
        hands[device].append(piles[kind].pop())
        left[kind] -= 1
    return [np.array(hand, dtype=np.int64) for hand in hands]
