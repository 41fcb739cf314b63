import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_stub.example_store import (
    ExampleStore,
    NotEnoughExamples,
    Retention,
    WrongExamples,
)
from device_plan.plan_pb2 import ExampleSelector


def _numbers(first: int, count: int) -> dict[str, np.ndarray]:
    index = np.arange(first, first + count)
    return {
        "x": np.stack([index, -index], axis=1).astype(np.float32),
        "label": index.astype(np.int64),
    }


def _selector(**changes) -> ExampleSelector:
    return ExampleSelector(collection="c", **changes)


@pytest.fixture
def store(tmp_path: Path) -> ExampleStore:
    return ExampleStore(tmp_path / "examples.sqlite", durable=False)


def test_examples_come_back_as_they_were_added_and_in_order(store: ExampleStore):
    store.add("c", _numbers(0, 3), now=0.0)
    store.add("c", _numbers(3, 2), now=1.0)
    found = store.query(_selector(), now=2.0)
    expected = _numbers(0, 5)
    assert set(found) == {"x", "label"}
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_of_too_many_the_newest_are_taken_oldest_first(store: ExampleStore):
    store.add("c", _numbers(0, 10), now=0.0)
    found = store.query(_selector(max_examples=3), now=1.0)
    assert found["label"].tolist() == [7, 8, 9]


def test_criteria_choose_by_tag(store: ExampleStore):
    store.add("c", _numbers(0, 2), now=0.0, tag="typed")
    store.add("c", _numbers(2, 2), now=0.0, tag="spoken")
    store.add("c", _numbers(4, 1), now=0.0, tag="typed")
    assert store.query(_selector(criteria="typed"), now=1.0)["label"].tolist() == [0, 1, 4]
    assert store.query(_selector(), now=1.0)["label"].tolist() == [0, 1, 2, 3, 4]
    assert store.count("c", tag="spoken") == 2


def test_too_few_examples_are_said_with_both_numbers(store: ExampleStore):
    store.add("c", _numbers(0, 4), now=0.0)
    with pytest.raises(NotEnoughExamples, match="4 examples match, the plan needs 5"):
        store.query(_selector(min_examples=5), now=1.0)
    assert len(store.query(_selector(min_examples=4), now=1.0)["label"]) == 4


def test_an_unknown_collection_has_no_examples(store: ExampleStore):
    assert store.count("c") == 0
    with pytest.raises(NotEnoughExamples):
        store.query(_selector(), now=0.0)


def test_retention_by_count_keeps_the_newest(store: ExampleStore):
    store.add("c", _numbers(0, 4), now=0.0, retention=Retention(max_count=3))
    store.add("other", _numbers(0, 4), now=0.0)
    store.add("c", _numbers(4, 1), now=1.0)
    assert store.query(_selector(), now=1.0)["label"].tolist() == [2, 3, 4]
    assert store.count("other") == 4


def test_retention_by_age_drops_at_the_query(store: ExampleStore):
    store.add("c", _numbers(0, 1), now=0.0, retention=Retention(max_age_s=10.0))
    store.add("c", _numbers(1, 1), now=8.0)
    assert store.query(_selector(), now=10.0)["label"].tolist() == [0, 1]
    assert store.query(_selector(), now=10.5)["label"].tolist() == [1]
    assert store.count("c") == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no array"),
        ({"x": np.float32(3)}, "no first dimension"),
        ({"x": np.array(["a"])}, "numbers or booleans"),
        ({"x": np.zeros(3), "y": np.zeros(2)}, "different numbers"),
    ],
)
def test_arrays_that_are_no_examples_are_refused(store: ExampleStore, arrays, message: str):
    with pytest.raises(WrongExamples, match=message):
        store.add("c", arrays, now=0.0)
    assert store.count("c") == 0


def test_a_collection_refuses_other_tensors_than_its_first(store: ExampleStore):
    store.add("c", _numbers(0, 2), now=0.0)
    with pytest.raises(WrongExamples, match="collection 'c' holds"):
        store.add("c", {"x": np.zeros((1, 3), np.float32)}, now=0.0)
    assert store.count("c") == 2


def test_only_the_owner_may_read_the_file(store: ExampleStore, tmp_path: Path):
    store.add("c", _numbers(0, 1), now=0.0)
    assert (tmp_path / "examples.sqlite").stat().st_mode & 0o777 == 0o600


@given(st.data())
def test_any_shapes_and_dtypes_survive(tmp_path_factory, data):
    count = data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    arrays = {}
    for number in range(data.draw(st.integers(1, 3))):
        shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=3)))
        dtype = data.draw(st.sampled_from(["float32", "float64", "int64", "uint8", "bool"]))
        arrays[f"tensor {number}"] = (9 * rng.random((count, *shape))).astype(dtype)
    store = ExampleStore(tmp_path_factory.mktemp("s") / "e.sqlite", durable=False)
    store.add("c", arrays, now=0.0)
    found = store.query(_selector(), now=0.0)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


_ADDING = """
import sys, numpy as np
from pathlib import Path
from android_stub.example_store import ExampleStore
store = ExampleStore(Path(sys.argv[1]), durable=False)
at = 0
while True:
    store.add("c", {"label": np.arange(at, at + 50)}, now=0.0)
    at += 50
    print(at, flush=True)
"""


def test_a_process_killed_while_adding_leaves_whole_additions(tmp_path: Path):
    path = tmp_path / "examples.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", _ADDING, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for _ in range(3):
        child.stdout.readline()
    time.sleep(0.003)
    os.kill(child.pid, signal.SIGKILL)
    told = [line for line in child.stdout.read().splitlines() if line]
    child.wait()
    child.stdout.close()
    store = ExampleStore(path)
    found = store.query(_selector(), now=0.0)["label"]
    assert len(found) % 50 == 0
    assert len(found) >= (int(told[-1]) if told else 150)
    assert found.tolist() == list(range(len(found)))
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_empty_file_left_by_a_killed_creator_becomes_a_store(tmp_path: Path):
    path = tmp_path / "examples.sqlite"
    path.touch()
    store = ExampleStore(path)
    assert store.add("c", _numbers(0, 1), now=0.0) == 1
