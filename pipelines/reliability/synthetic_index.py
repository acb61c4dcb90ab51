"""The index of a corpus of any size, without its audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from speechrnn.data.columns import Columns, Rows, Strings
from speechrnn.data.index import Index, Shard
from speechrnn.specs import AlphabetSpec

RATE = 16_000  # Hz
# Tenths of the durations of LibriSpeech train-clean-5, seconds; their mean is 12.6.
DURATIONS = [2.0, 6.4, 10.1, 12.3, 13.2, 13.9, 14.5, 14.9, 15.4, 15.8, 17.3]
CHARACTERS_PER_SECOND = 14.8  # there
PER_SHARD = 2_000  # utterances
PER_SPEAKER = 100
LETTERS = " '" + "abcdefghijklmnopqrstuvwxyz"
_BLOCK = 1 << 20  # characters drawn, then repeated


def make(root: Path, utterances: int, mean_seconds: float, seed: int = 0) -> Index:
    """An index of ``utterances``, a hundredth of them ``dev``, their lengths distributed as
    LibriSpeech's, stretched to the mean.

    The texts, random letters, lie in a scratch file under ``root``, which is of no use once the
    index is saved.
    """
    rng = np.random.default_rng(seed)
    seconds = np.interp(rng.random(utterances), np.linspace(0, 1, len(DURATIONS)), DURATIONS)
    samples = (seconds * (mean_seconds / seconds.mean()) * RATE).astype("<i4")
    characters = np.maximum(1, samples * (CHARACTERS_PER_SECOND / RATE)).astype("<i4")
    number = np.arange(utterances)
    length = (2 * samples + 300).astype("<i4")
    numbers = {
        "split": (number >= utterances - max(1, utterances // 100)).astype("<u2"),
        "speaker": (number // PER_SPEAKER).astype("<i4"),
        "shard": (number // PER_SHARD).astype("<i4"),
        "offset": number % PER_SHARD * (2 * samples.max(initial=0).astype("<i8") + 316) + 12,
        "length": length,
        "crc32": rng.integers(0, 2**32, utterances, "<u4"),
        "samples": samples,
        "frames_needed": characters,  # no letter stands twice in a row
    }
    ends = np.cumsum(characters, dtype="<i8")
    columns = Columns(
        numbers,
        utterance_id=_numbered(utterances),
        text=Strings(_letters(root, int(ends[-1]), rng), ends),
        splits=Strings(np.frombuffer(b"traindev", np.uint8), np.array([5, 8], "<i8")),
        speakers=_numbered(-(-utterances // PER_SPEAKER)),
    )
    sizes = np.bincount(numbers["shard"]).tolist()
    return Index(
        root=root,
        sample_rate=RATE,
        alphabet=AlphabetSpec(tuple(LETTERS)),
        statistics=None,
        corpus_sha256="0" * 64,
        shards=tuple(Shard(f"{i:05d}.tfrecord", n, 0, "0" * 64) for i, n in enumerate(sizes)),
        rows=Rows(columns),
    )


def _numbered(count: int) -> Strings:
    """u00000000, u00000001, ..."""
    digits = np.arange(count)[:, None] // 10 ** np.arange(7, -1, -1) % 10 + ord("0")
    content = np.full((count, 9), ord("u"), np.uint8)
    content[:, 1:] = digits
    return Strings(content.reshape(-1), 9 * np.arange(1, count + 1))


def _letters(root: Path, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many random letters, no two equal ones next to each other, mapped from a file."""
    alphabet = np.frombuffer(LETTERS.encode(), np.uint8)
    # A step from letter to letter is never 0, nor is that from the last of a block to the first.
    steps = rng.integers(1, len(alphabet) // 2, _BLOCK)
    steps[-1] += 1 if steps.sum() % len(alphabet) == steps[0] else 0
    block = alphabet[np.cumsum(steps) % len(alphabet)].tobytes()
    root.mkdir(parents=True, exist_ok=True)
    path = root / "letters"
    with path.open("wb") as file:
        for _ in range(count // _BLOCK):
            file.write(block)
        file.write(block[: count % _BLOCK])
    return np.memmap(path, np.uint8, "r")
