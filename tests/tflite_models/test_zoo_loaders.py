"""The loaders read the file formats that they document, and TFF's own data sets."""

import csv
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_models import next_word, ranking
from tflite_models import shakespeare as characters
from tflite_models.data import activity, emnist, federated_data, shakespeare
from tflite_models.data import next_word as sentences
from tflite_models.data import ranking as taps
from tflite_models.data.federated_data import WrongDataFile


def leaf(path: Path, **writers: tuple[list, list]) -> Path:
    user_data = {name: {"x": x, "y": y} for name, (x, y) in writers.items()}
    samples = [len(y) for _, y in writers.values()]
    path.write_text(
        json.dumps({"users": [*writers], "num_samples": samples, "user_data": user_data})
    )
    return path


def test_emnist_is_read_from_leafs_json(tmp_path: Path) -> None:
    white, black = [1.0] * 784, [0.0] * 784
    stroke = [0.25 if pixel == 28 * 3 + 5 else 1.0 for pixel in range(784)]
    leaf(tmp_path / "all_data_0.json", f0001=([white, stroke], [3, 40]), f0002=([black], [61]))
    leaf(tmp_path / "all_data_1.json", f0003=([white], [0]))
    data = emnist.from_leaf(tmp_path)
    writers = {**data.clients, **data.held_out}
    assert sorted(writers) == ["f0001", "f0002", "f0003"]
    first = writers["f0001"]
    assert first["y"].tolist() == [3, 40]
    assert first["x"][0].max() == 0.0
    assert first["x"][1, 3, 5, 0] == 0.75
    assert first["x"][1].sum() == 0.75
    digits_only = emnist.from_leaf(tmp_path, digits_only=True)
    writers = {**digits_only.clients, **digits_only.held_out}
    assert {name: features["y"].tolist() for name, features in writers.items()} == {
        "f0001": [3],
        "f0003": [0],
    }


@pytest.mark.parametrize(
    "text", ["[", "[]", '{"users": []}', '{"user_data": {"w": {"x": [[1, 2]], "y": [1]}}}']
)
def test_a_file_that_is_not_leafs_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(WrongDataFile, match=r"wrong\.json is not LEAF's FEMNIST"):
        emnist.from_leaf(path)


def test_a_directory_without_leafs_files_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(WrongDataFile, match=r"femnist/preprocess\.sh"):
        emnist.from_leaf(tmp_path)


def test_messages_are_read_from_one_text_file_a_person(tmp_path: Path) -> None:
    (tmp_path / "anna.txt").write_text("The cat sat.\n\nthe cat didn't!\n")
    (tmp_path / "ben.txt").write_text("The dog ran\n")
    vocabulary = sentences.Vocabulary(("the", "cat", "didn't", "."))
    data, same = sentences.from_text_files(tmp_path, vocabulary)
    assert same is vocabulary
    people = {**data.clients, **data.held_out}
    begin, end, unknown = next_word.BEGIN, next_word.END, next_word.UNKNOWN
    the, cat, didnt, stop = range(4, 8)
    expected = [[begin, the, cat, unknown, stop, end], [begin, the, cat, didnt, unknown, end]]
    for row, ids in enumerate(expected):
        padded = ids + [next_word.PADDING] * (21 - len(ids))
        assert people["anna"]["x"][row].tolist() == padded[:-1]
        assert people["anna"]["y"][row].tolist() == padded[1:]
    assert people["ben"]["x"][0, :4].tolist() == [begin, the, unknown, unknown]


def test_a_vocabulary_knows_only_the_words_of_those_who_train(tmp_path: Path) -> None:
    for person in range(10):
        (tmp_path / f"p{person}.txt").write_text(f"we all say word{person}\n" * (person + 1))
    data, vocabulary = sentences.from_text_files(tmp_path)
    own = {f"word{name[1:]}" for name in data.clients}
    assert {word for word in vocabulary.words if word.startswith("word")} == own
    assert set(vocabulary.words[:3]) == {"we", "all", "say"}
    for features in data.held_out.values():
        assert (features["y"] == next_word.UNKNOWN).sum() == len(features["y"])


def test_a_long_sentence_is_cut_and_has_no_end() -> None:
    ids = sentences.Vocabulary(("a",)).encode(["a"] * 30)
    assert ids.tolist() == [next_word.BEGIN] + [4] * 20


def test_a_vocabulary_survives_its_file(tmp_path: Path) -> None:
    vocabulary = sentences.Vocabulary.of([["b", "a", "b"], ["ä", "a", "c"]], size=7)
    assert vocabulary.words == ("a", "b", "c")
    vocabulary.write(tmp_path / "words.txt")
    assert sentences.Vocabulary.read(tmp_path / "words.txt") == vocabulary
    (tmp_path / "twice.txt").write_text("a\nb\na\n")
    with pytest.raises(WrongDataFile, match=r"twice\.txt: the vocabulary has 'a' twice"):
        sentences.Vocabulary.read(tmp_path / "twice.txt")


def test_a_vocabulary_larger_than_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="10000 words; the model has ids for 9996"):
        sentences.Vocabulary(tuple(f"w{number}" for number in range(10_000)))


@pytest.mark.parametrize("people", [{}, {"anna": "hello\n"}, {"anna": "hello\n", "ben": "\n"}])
def test_texts_of_fewer_than_two_people_are_refused(tmp_path: Path, people) -> None:
    for name, text in people.items():
        (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(WrongDataFile, match=r"at least two \.txt files"):
        sentences.from_text_files(tmp_path)


PLAY = """First Citizen:
Before we proceed any further, hear me speak.

All:
Speak, speak.

First Citizen:
You are all resolved rather to die than to famish?
"""


def test_speeches_are_read_from_a_play(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text(PLAY)
    data = shakespeare.from_play(tmp_path / "play.txt")
    speakers = {**data.clients, **data.held_out}
    assert sorted(speakers) == ["All", "First Citizen"]
    assert speakers["First Citizen"]["x"].shape == (2, 80)
    said = speakers["All"]
    assert shakespeare.decode(said["y"][0]) == "Speak, speak."
    assert said["x"][0, 0] == characters.BEGIN
    assert said["y"][0, :14].tolist()[-2:] == [said["x"][0, 13], characters.END]
    assert not said["y"][0, 14:].any()


def test_a_speech_without_a_speaker_is_named(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text("Enter a ghost\n\nHamlet:\nSpeak!\n")
    with pytest.raises(WrongDataFile, match="begins with 'Enter a ghost'"):
        shakespeare.from_play(tmp_path / "play.txt")


@given(st.text(alphabet=st.sampled_from(characters.CHARACTERS), max_size=400))
def test_the_windows_of_a_speech_are_the_speech(speech: str) -> None:
    windows = shakespeare.encode(speech)
    assert windows.shape == (-(-(len(speech) + 2) // 81), 81)
    assert shakespeare.decode(windows.ravel()) == speech


def test_a_character_that_has_no_id_is_unknown() -> None:
    assert shakespeare.encode("é")[0, :3].tolist() == [
        characters.BEGIN,
        characters.UNKNOWN,
        characters.END,
    ]


def test_the_shipped_speeches_hold_known_characters_only() -> None:
    data = shakespeare.speeches()
    speakers = {**data.clients, **data.held_out}
    assert len(speakers) == 25
    ids = np.concatenate([features["y"].ravel() for features in speakers.values()])
    assert not (ids == characters.UNKNOWN).any()
    assert ids.max() < characters.VOCABULARY


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    path = tmp_path / "shown.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["note", *reversed(taps.COLUMNS)])
        writer.writeheader()
        for device, item, tapped in [("a", "Wi-Fi", 1), ("b", "Töne", 0), ("a", "Display", 0)]:
            numbers = {name: index / 8 for index, name in enumerate(ranking.NUMBERS)}
            writer.writerow(
                {"note": "", "device": device, "item": item, "tapped": tapped} | numbers
            )
    return path


def test_a_ranking_is_read_from_a_table(shown: Path) -> None:
    data = taps.from_csv(shown)
    devices = {**data.clients, **data.held_out}
    assert devices["a"]["y"].tolist() == [[1.0], [0.0]]
    assert devices["a"]["x/numbers"][0].tolist() == [index / 8 for index in range(8)]
    assert devices["a"]["x/item"].tolist() == [taps.bucket("Wi-Fi"), taps.bucket("Display")]


def test_the_bucket_of_an_item_is_its_crc_32() -> None:
    # The check value of CRC-32/ISO-HDLC, which java.util.zip.CRC32 computes too.
    assert zlib.crc32(b"123456789") == 0xCBF43926
    assert taps.bucket("123456789") == 0xCBF43926 % 1000
    assert taps.bucket("Töne") == zlib.crc32(bytes([84, 195, 182, 110, 101])) % 1000


@pytest.mark.parametrize("value", ["2", "yes", ""])
def test_a_wrong_value_is_named_by_its_line(shown: Path, value: str) -> None:
    lines = shown.read_text().splitlines()
    lines[2] = ",".join(["", value, *lines[2].split(",")[2:]])
    shown.write_text("\n".join(lines))
    with pytest.raises(WrongDataFile, match=r"shown\.csv, line 3: .*tapped 0 or 1"):
        taps.from_csv(shown)


def test_a_missing_column_is_named(shown: Path) -> None:
    shown.write_text(shown.read_text().replace("recency", "recent"))
    with pytest.raises(WrongDataFile, match="no column 'recency'"):
        taps.from_csv(shown)


def har(directory: Path, part: str, windows: np.ndarray, labels, subjects) -> None:
    signals = directory / part / "Inertial Signals"
    signals.mkdir(parents=True)
    for axis, name in enumerate("xyz"):
        np.savetxt(signals / f"total_acc_{name}_{part}.txt", windows[:, :, axis], fmt="%16.7e")
    np.savetxt(directory / part / f"y_{part}.txt", labels, fmt="%d")
    np.savetxt(directory / part / f"subject_{part}.txt", subjects, fmt="%d")


def test_activities_are_read_from_the_uci_har_data_set(tmp_path: Path) -> None:
    windows = np.random.default_rng(0).normal(size=(4, 128, 3))
    har(tmp_path, "train", windows, [1, 6, 2, 5], [7, 1, 7, 1])
    har(tmp_path, "test", windows[:1], [4], [2])
    data = activity.from_uci_har(tmp_path)
    assert [*data.clients] == ["subject-01", "subject-07"]
    assert [*data.held_out] == ["subject-02"]
    assert data.clients["subject-07"]["y"].tolist() == [0, 1]
    np.testing.assert_allclose(data.clients["subject-07"]["x"], windows[[0, 2]], rtol=1e-6)


def test_what_is_wrong_with_a_uci_har_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(WrongDataFile, match=r"y_train\.txt does not exist: .*UCI HAR Dataset"):
        activity.from_uci_har(tmp_path)
    har(tmp_path, "train", np.zeros((2, 128, 3)), [1, 7], [1, 2])
    with pytest.raises(WrongDataFile, match="labels must be from 1 to 6"):
        activity.from_uci_har(tmp_path)
    (tmp_path / "train" / "y_train.txt").write_text("1\n")
    with pytest.raises(WrongDataFile, match="differ in their number of lines"):
        activity.from_uci_har(tmp_path)
    (tmp_path / "train" / "y_train.txt").write_text("one\n")
    with pytest.raises(WrongDataFile, match="no table of numbers"):
        activity.from_uci_har(tmp_path)


def test_tffs_emnist_becomes_ink_on_paper() -> None:
    import tensorflow_federated as tff

    source = tff.simulation.datasets.emnist.get_synthetic()
    devices = federated_data.from_client_data(source, emnist.tff_features, first=0, count=1)
    rows = list(source.create_tf_dataset_for_client(source.client_ids[0]).as_numpy_iterator())
    features = devices[source.client_ids[0]]
    assert features["y"].tolist() == [row["label"] for row in rows]
    for image, row in zip(features["x"], rows, strict=True):
        np.testing.assert_allclose(image[:, :, 0], 1 - row["pixels"])


def test_tffs_shakespeare_becomes_windows() -> None:
    import tensorflow_federated as tff

    source = tff.simulation.datasets.shakespeare.get_synthetic()
    devices = federated_data.from_client_data(source, shakespeare.tff_features, first=0, count=9)
    assert sorted(devices) == sorted(source.client_ids)
    cupid = devices["THE_TAMING_OF_THE_SHREW_CUPID"]
    assert shakespeare.decode(cupid["x"][0]) == "Hail to thee, worthy Timon, and to all"


def test_tffs_stack_overflow_becomes_sentences() -> None:
    import tensorflow_federated as tff

    source = tff.simulation.datasets.stackoverflow.get_synthetic()
    counts = tff.simulation.datasets.stackoverflow.get_synthetic_word_counts()
    vocabulary = sentences.Vocabulary(tuple(counts))
    devices = federated_data.from_client_data(
        source, lambda rows: sentences.tff_features(rows, vocabulary), first=0, count=2
    )
    name = source.client_ids[0]
    rows = list(source.create_tf_dataset_for_client(name).as_numpy_iterator())
    words = rows[0]["tokens"].decode().split()
    expected = [
        vocabulary.words.index(word) + 4 if word in counts else next_word.UNKNOWN for word in words
    ]
    assert devices[name]["x"][0, 1 : len(words) + 1].tolist() == expected[:19]
