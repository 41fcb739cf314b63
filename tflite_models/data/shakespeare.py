"""Speeches by character, for `tflite_models.shakespeare`.

Every source gives `x` and `y`, int32 [80]: windows of a speech that begins with BEGIN
and ends with END, and the same windows one character on. A speech's last window is
padded with PADDING.
"""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tflite_models.data.federated_data import (
    Features,
    FederatedData,
    WrongDataFile,
    draw,
    from_client_data,
    hold_out,
    require,
)
from tflite_models.shakespeare import BEGIN, CHARACTERS, END, LENGTH, PADDING, UNKNOWN

#: Famous speeches, in the form that `from_play` reads.
SAMPLE = Path(__file__).with_name("shakespeare.txt")

_IDS = {character: number for number, character in enumerate(CHARACTERS, start=1)}


def encode(speech: str) -> np.ndarray:
    """The windows of a speech, int32 [n, LENGTH + 1], one after another without overlap.

    As TFF's Shakespeare baseline cuts them: LENGTH characters to read, and the one
    that follows the last.
    """
    ids = [BEGIN, *(_IDS.get(character, UNKNOWN) for character in speech), END]
    ids += [PADDING] * (-len(ids) % (LENGTH + 1))
    return np.array(ids, np.int32).reshape(-1, LENGTH + 1)


def decode(ids: Iterable[int]) -> str:
    """The text of ids; those that are no character are left out."""
    return "".join(CHARACTERS[i - 1] for i in ids if PADDING < i <= len(CHARACTERS))


def features(speeches: Iterable[str]) -> Features:
    """The examples of one character's speeches."""
    windows = np.concatenate([np.zeros((0, LENGTH + 1), np.int32), *map(encode, speeches)])
    return Features(x=windows[:, :-1], y=windows[:, 1:])


def from_play(path: Path, *, seed: int = 0) -> FederatedData:
    """Plays as text, UTF-8, a device being a speaking character.

    Speeches are separated by empty lines. The first line of each is the speaker's
    name and a colon, the others are what is said:

        First Citizen:
        Before we proceed any further, hear me speak.

        All:
        Speak, speak.

    This is the form of the widespread "tiny Shakespeare" file. Names alone tell
    speakers apart.

    Args:
        path: The file.
        seed: Of the choice of held-out speakers, a fifth.

    Raises:
        WrongDataFile: the file is missing, is not UTF-8, has a speech without a
            speaker, or fewer than two speakers; the message says which.
    """
    require(path, "give a text file of speeches, each below its speaker's name and a colon")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WrongDataFile(f"{path} is not UTF-8: {error}") from error
    speeches: dict[str, list[str]] = {}
    for block in re.split(r"\n(?:[ \t]*\n)+", text.strip()):
        name, _, speech = block.partition("\n")
        if not name.rstrip().endswith(":"):
            raise WrongDataFile(
                f"{path}: a speech begins with {name[:40]!r}; "
                "it must begin with its speaker's name and a colon"
            )
        if speech.strip():
            speeches.setdefault(name.rstrip().rstrip(":"), []).append(speech)
    if len(speeches) < 2:
        raise WrongDataFile(f"{path} has {len(speeches)} speakers; at least two are needed")
    return hold_out({name: features(said) for name, said in speeches.items()}, seed=seed)


def from_tff(
    *, speakers: int = 200, held_out: int = 50, cache_dir: str | None = None
) -> FederatedData:
    """TFF's Shakespeare by character: downloads some MB at the first call.

    The characters held out are others than those who train.
    """
    from tensorflow_federated import simulation

    train, _ = simulation.datasets.shakespeare.load_data(cache_dir)
    return FederatedData(
        clients=from_client_data(train, tff_features, first=0, count=speakers),
        held_out=from_client_data(train, tff_features, first=speakers, count=held_out),
    )


def tff_features(rows: list[Any]) -> Features:
    """A character's features of the rows of TFF's data set."""
    return features(row["snippets"].decode("utf-8") for row in rows)


def speeches(*, seed: int = 0) -> FederatedData:
    """The speeches that come with this package, by 25 characters."""
    return from_play(SAMPLE, seed=seed)


def sample(rng: np.random.Generator, count: int) -> Features:
    """Windows of several characters' speeches, for a task's sample_fn."""
    return draw(_characters(), rng, count)


@functools.cache
def _characters() -> dict[str, Features]:
    return dict(speeches().clients)
