"""The examples of every loader fit its model, and differ between devices as they should."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_stub.example_files import ExampleFiles
from device_plan.proxy_data import ProxyData
from tests.tflite_models.zoo import MODELS
from tflite_models.data import activity, digits, emnist, federated_data
from tflite_models.data import ranking as taps
from tflite_models.data.label_skew import deal

named = pytest.mark.parametrize("name", MODELS)


def assert_equal(ours, theirs) -> None:
    assert ours.keys() == theirs.keys()
    for device in ours:
        assert ours[device].keys() == theirs[device].keys()
        for feature in ours[device]:
            np.testing.assert_array_equal(ours[device][feature], theirs[device][feature])


@named
def test_every_devices_examples_fit_the_model(name: str) -> None:
    from device_plan.compiler.model import flat_features

    specs = dict(flat_features(MODELS[name].make().input_spec))
    data = MODELS[name].data()
    for features in (*data.clients.values(), *data.held_out.values()):
        assert features.keys() == specs.keys()
        assert len({len(value) for value in features.values()}) == 1
        for feature, value in features.items():
            assert value.dtype == specs[feature].dtype.as_numpy_dtype
            assert list(value.shape[1:]) == specs[feature].shape[1:].as_list()


@named
def test_equal_seeds_give_equal_examples(name: str) -> None:
    first, again = MODELS[name].data(), MODELS[name].data()
    assert_equal(first.clients, again.clients)
    assert_equal(first.held_out, again.held_out)


@named
def test_a_sample_has_as_many_examples_as_asked_for(name: str) -> None:
    drawn = MODELS[name].sample(np.random.default_rng(3), 7)
    again = MODELS[name].sample(np.random.default_rng(3), 7)
    other = MODELS[name].sample(np.random.default_rng(4), 7)
    assert {len(value) for value in drawn.values()} == {7}
    assert_equal({"": drawn}, {"": again})
    assert any(not np.array_equal(drawn[feature], other[feature]) for feature in drawn)


@pytest.mark.parametrize("name", ["digits", "emnist", "activity", "next word"])
def test_devices_differ_in_their_labels_more_than_chance_allows(name: str) -> None:
    from scipy.stats import chi2_contingency

    devices = [features["y"].ravel() for features in MODELS[name].data().clients.values()]
    kinds = max(labels.max() for labels in devices) + 1
    counts = np.array([np.bincount(labels, minlength=kinds) for labels in devices])
    _, p_value, _, _ = chi2_contingency(counts[:, counts.sum(axis=0) > 0])
    assert p_value < 1e-6


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.integers(1, 20),
    st.floats(0.01, 100),
    st.integers(0, 99),
)
def test_dealing_partitions_the_examples_evenly(
    labels: list[int], devices: int, concentration: float, seed: int
) -> None:
    devices = min(devices, len(labels))
    rng = np.random.default_rng(seed)
    hands = deal(np.array(labels), devices=devices, concentration=concentration, rng=rng)
    assert sorted(np.concatenate(hands).tolist()) == list(range(len(labels)))
    assert len(hands) == devices
    assert max(map(len, hands)) - min(map(len, hands)) <= 1


def test_a_small_concentration_gives_a_device_few_labels() -> None:
    labels = np.arange(1000) % 10
    kinds = {}
    for concentration in (0.05, 100.0):
        rng = np.random.default_rng(0)
        hands = deal(labels, devices=20, concentration=concentration, rng=rng)
        # The last hands take what is left.
        kinds[concentration] = np.mean([len(set(labels[hand[:20]])) for hand in hands])
    assert kinds[0.05] < 4 < 7 < kinds[100.0]


def test_more_devices_than_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="3 examples cannot be dealt to 4 devices"):
        deal(np.zeros(3, int), devices=4, concentration=1.0, rng=np.random.default_rng())


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 99))
def test_somebody_always_trains_and_somebody_is_held_out(
    count: int, fraction: float, seed: int
) -> None:
    devices = {str(number): {} for number in range(count)}
    data = federated_data.hold_out(devices, fraction=fraction, seed=seed)
    assert data.clients.keys() | data.held_out.keys() == devices.keys()
    assert not data.clients.keys() & data.held_out.keys()
    assert len(data.held_out) == min(max(1, round(fraction * count)), count - 1)


def test_a_device_cannot_both_train_and_be_held_out() -> None:
    with pytest.raises(ValueError, match="'a' both trains and is held out"):
        federated_data.FederatedData(clients={"a": {}}, held_out={"a": {}})


def test_a_fleet_reads_the_written_device_files(tmp_path: Path) -> None:
    data = taps.synthetic(people=5, shown=6)
    names = federated_data.write_device_files(tmp_path / "fleet", data.clients)
    files = ExampleFiles(tmp_path / "fleet", devices=len(names))
    files.check()
    read = {name: files.load(number) for number, name in enumerate(names)}
    assert_equal(read, dict(data.clients))


def test_a_simulation_reads_the_written_proxy_file(tmp_path: Path) -> None:
    data = taps.synthetic(people=5, shown=6)
    federated_data.write_proxy_file(tmp_path / "proxy.npz", data)
    read = ProxyData.from_npz(tmp_path / "proxy.npz")
    assert_equal(read.clients, data.clients)
    assert_equal(read.held_out, data.held_out)


def test_a_device_whose_name_would_be_misread_is_refused(tmp_path: Path) -> None:
    rows = {"x": np.zeros(1)}
    data = federated_data.FederatedData(clients={"a/b": rows}, held_out={"c": rows})
    with pytest.raises(ValueError, match="'a/b' cannot be in the file"):
        federated_data.write_proxy_file(tmp_path / "proxy.npz", data)


def test_an_enlarged_digit_is_still_read_as_that_digit() -> None:
    from sklearn.linear_model import LogisticRegression

    data = emnist.synthetic(writers=40)
    train, test = (federated_data.pool(part.values()) for part in (data.clients, data.held_out))
    model = LogisticRegression(C=0.01, max_iter=300).fit(train["x"].reshape(-1, 784), train["y"])
    assert model.score(test["x"].reshape(-1, 784), test["y"]) > 0.7


def test_taps_follow_the_hidden_model() -> None:
    from sklearn.linear_model import LogisticRegression

    rows = federated_data.pool(taps.synthetic(people=300).clients.values())
    fitted = LogisticRegression(C=1e6, max_iter=500).fit(rows["x/numbers"], rows["y"][:, 0])
    # Popularity and a person's bias are noise to this model, which flattens its weights.
    ratio = fitted.coef_[0][:6] / np.array(taps.TASTE[:6])
    assert ((ratio > 0.5) & (ratio < 1.2)).all()
    assert (np.abs(fitted.coef_[0][6:]) < 0.2).all()


def test_someone_who_stands_feels_one_g() -> None:
    people = federated_data.pool(activity.synthetic().clients.values())
    still = people["x"][people["y"] >= 3].mean(axis=1)
    np.testing.assert_allclose(np.linalg.norm(still, axis=1), 1.0, atol=0.03)


def test_people_walk_at_the_pace_they_should() -> None:
    people = federated_data.pool(activity.synthetic(people=100).clients.values())
    for label, pace in enumerate(activity.STEPS_HZ[:3]):
        along = people["x"][people["y"] == label][:, :, 0]
        spectrum = np.abs(np.fft.rfft(along - along.mean(axis=1, keepdims=True))).mean(axis=0)
        frequency = np.fft.rfftfreq(128, 1 / 50)[spectrum.argmax()]
        # Neighbouring frequencies of 128 readings are 0.39 Hz apart.
        assert frequency == pytest.approx(pace, abs=0.4)


def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data = digits.scans()
    dealt = federated_data.pool([*data.clients.values(), *data.held_out.values()])
    ours = sorted(struct.pack("64f", *row) for row in dealt["x"])
    theirs = sorted(struct.pack("64f", *row) for row in load_digits().data / 16)
    assert ours == theirs
