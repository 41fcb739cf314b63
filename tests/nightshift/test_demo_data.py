"""How the demo deals scans to devices; scikit-learn's own loader says which scans there are."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from nightshift.demo.data import write_device_files


def deal(directory: Path, **options: float) -> list[dict[str, np.ndarray]]:
    settings = {"devices": 120, "concentration": 1.0, "seed": 1, **options}
    sizes = write_device_files(directory, **settings)
    files = sorted(directory.iterdir())
    assert [file.name for file in files] == [f"device-{n:05}.npz" for n in range(len(sizes))]
    hands = [dict(np.load(file)) for file in files]
    assert [len(hand["y"]) for hand in hands] == sizes
    return hands


def kinds(hands: list[dict[str, np.ndarray]]) -> float:
    """Different digits of a device, on average."""
    return float(np.mean([len(np.unique(hand["y"])) for hand in hands]))


@settings(max_examples=5)
@given(devices=st.integers(1, 1797), concentration=st.floats(0.01, 100), seed=st.integers(0, 2**32))
def test_every_scan_goes_to_exactly_one_device(
    tmp_path_factory: pytest.TempPathFactory, devices: int, concentration: float, seed: int
) -> None:
    hands = deal(
        tmp_path_factory.mktemp("hands"), devices=devices, concentration=concentration, seed=seed
    )
    digits = load_digits()
    pixels = np.concatenate([hand["x"] for hand in hands])
    labels = np.concatenate([hand["y"] for hand in hands])
    assert (pixels.dtype, labels.dtype) == (np.float32, np.int64)

    def rows(pixels: np.ndarray, labels: np.ndarray) -> list[bytes]:
        scans = zip(np.rint(pixels).astype(np.uint8), labels, strict=True)
        return sorted(scan.tobytes() + bytes([label]) for scan, label in scans)

    assert rows(pixels * 16, labels) == rows(digits.data, digits.target)


def test_hands_differ_by_at_most_one_scan(tmp_path: Path) -> None:
    sizes = {len(hand["y"]) for hand in deal(tmp_path, devices=120)}
    assert sizes == {14, 15}


def test_equal_seeds_give_equal_hands_and_others_do_not(tmp_path: Path) -> None:
    first, again = deal(tmp_path / "1", seed=5), deal(tmp_path / "2", seed=5)
    other = deal(tmp_path / "3", seed=6)
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a["y"], b["y"]) for a, b in zip(first, other, strict=True))


def test_a_small_concentration_is_more_uneven_than_a_large_one(tmp_path: Path) -> None:
    small, one, large = (
        kinds(deal(tmp_path / str(concentration), concentration=concentration))
        for concentration in (0.1, 1.0, 100.0)
    )
    assert small < one < large
