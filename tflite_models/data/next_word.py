"""Sentences by person, for `tflite_models.next_word`.

Every source gives `x` and `y`, int32 [20]: a sentence that begins with BEGIN, and
the same sentence one word on, which ends with END if it fits. Both are padded with
PADDING. Ids are those of a `Vocabulary`, which a phone must have too.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tflite_models.data import chat
from tflite_models.data.federated_data import (
    Features,
    FederatedData,
    WrongDataFile,
    draw,
    from_client_data,
    hold_out,
    require,
)
from tflite_models.next_word import BEGIN, END, PADDING, UNKNOWN, VOCABULARY, WORDS

#: Ids below are no words.
SPECIAL = max(PADDING, UNKNOWN, BEGIN, END) + 1

_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Vocabulary:
    """The words that have ids of their own: word i has the id SPECIAL + i.

    Raises:
        ValueError: a word occurs twice, or there are more words than ids.
    """

    words: tuple[str, ...]
    _ids: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = {word: SPECIAL + index for index, word in enumerate(self.words)}
        if len(ids) < len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"the vocabulary has {twice!r} twice")
        if len(ids) + SPECIAL > VOCABULARY:
            raise ValueError(
                f"the vocabulary has {len(ids)} words; the model has ids for {VOCABULARY - SPECIAL}"
            )
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def of(cls, sentences: Iterable[Sequence[str]], size: int = VOCABULARY) -> "Vocabulary":
        """The most frequent words, so many that there are `size` ids; ties by the alphabet."""
        counts = Counter(word for sentence in sentences for word in sentence)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(tuple(ranked[: size - SPECIAL]))

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """A UTF-8 file with one word a line, as `write` writes it. Raises WrongDataFile."""
        require(path, "give a file with one word a line")
        try:
            return cls(tuple(path.read_text(encoding="utf-8").split()))
        except ValueError as error:
            raise WrongDataFile(f"{path}: {error}") from error

    def write(self, path: Path) -> None:
        """Writes one word a line, UTF-8."""
        path.write_text("".join(f"{word}\n" for word in self.words), encoding="utf-8")

    def encode(self, sentence: Sequence[str]) -> np.ndarray:
        """int32 [WORDS + 1]: BEGIN, the words, END if there is room, PADDING."""
        ids = [BEGIN, *(self._ids.get(word, UNKNOWN) for word in sentence), END][: WORDS + 1]
        return np.array(ids + [PADDING] * (WORDS + 1 - len(ids)), np.int32)

    def features(self, sentences: Iterable[Sequence[str]]) -> Features:
        """One example a sentence; empty sentences are left out."""
        rows = [self.encode(sentence) for sentence in sentences if sentence]
        encoded = np.array(rows, np.int32).reshape(-1, WORDS + 1)
        return Features(x=encoded[:, :-1], y=encoded[:, 1:])


def split_words(text: str) -> list[str]:
    """Lower-case words, numbers and punctuation marks; ' and - stay inside a word."""
    return _WORD.findall(text.lower())


def from_text_files(
    directory: Path, vocabulary: Vocabulary | None = None, *, seed: int = 0
) -> tuple[FederatedData, Vocabulary]:
    """Texts of several people: `NAME.txt` has the sentences of NAME, one a line, UTF-8.

    Args:
        directory: At least two such files.
        vocabulary: Without one, the most frequent words of those who train.
        seed: Of the choice of held-out people, a fifth.

    Raises:
        WrongDataFile: there are fewer than two people with sentences, or a file is
            not UTF-8; the message names it.
    """
    require(directory, "give a directory with one .txt file a person")
    people = {}
    for file in sorted(directory.glob("*.txt")):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise WrongDataFile(f"{file} is not UTF-8: {error}") from error
        people[file.stem] = [words for line in lines if (words := split_words(line))]
    return _encode(
        {name: sentences for name, sentences in people.items() if sentences},
        vocabulary,
        seed,
        f"{directory} needs at least two .txt files with one sentence a line",
    )


def _encode(
    people: Mapping[str, list[list[str]]], vocabulary: Vocabulary | None, seed: int, needed: str
) -> tuple[FederatedData, Vocabulary]:
    if len(people) < 2:
        raise WrongDataFile(needed)
    # Names alone decide who is held out, so their words stay out of the vocabulary.
    training = hold_out({name: {} for name in people}, seed=seed).clients
    if vocabulary is None:
        vocabulary = Vocabulary.of(words for name in training for words in people[name])
    devices = {name: vocabulary.features(sentences) for name, sentences in people.items()}
    return hold_out(devices, seed=seed), vocabulary


def from_tff(
    *, people: int = 200, held_out: int = 50, cache_dir: str | None = None
) -> tuple[FederatedData, Vocabulary]:
    """TFF's Stack Overflow posts by author: downloads several GB at the first call.

    The vocabulary are the data set's most frequent words.
    """
    from tensorflow_federated import simulation

    stackoverflow = simulation.datasets.stackoverflow
    counts = stackoverflow.load_word_counts(cache_dir, vocab_size=VOCABULARY - SPECIAL)
    vocabulary = Vocabulary(tuple(counts))
    train, others, _ = stackoverflow.load_data(cache_dir)

    def features(rows: list[Any]) -> Features:
        return tff_features(rows, vocabulary)

    data = FederatedData(
        clients=from_client_data(train, features, first=0, count=people),
        held_out=from_client_data(others, features, first=0, count=held_out),
    )
    return data, vocabulary


def tff_features(rows: list[Any], vocabulary: Vocabulary) -> Features:
    """An author's features of the rows of TFF's data set, whose words are split already."""
    return vocabulary.features(row["tokens"].decode("utf-8").split() for row in rows)


def synthetic(
    *, people: int = 40, sentences: int = 60, seed: int = 0
) -> tuple[FederatedData, Vocabulary]:
    """Short messages of people who each have their own subjects and friends.

    Args:
        people: At least 2; a fifth of them is held out.
        sentences: Of each, at least 1.
        seed: Equal seeds give equal people.
    """
    rng = np.random.default_rng(seed)
    written = {
        f"person-{number:04}": [split_words(text) for text in chat.messages(rng, sentences)]
        for number in range(people)
    }
    return _encode(written, None, seed, f"at least two people are needed, not {people}")


def sample(rng: np.random.Generator, count: int) -> Features:
    """Messages of several synthetic people, for a task's sample_fn."""
    return draw(_people(), rng, count)


@functools.cache
def _people() -> dict[str, Features]:
    return dict(synthetic()[0].clients)
