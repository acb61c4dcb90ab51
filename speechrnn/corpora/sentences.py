"""Where the sentences of a language model come from: plain text, or a manifest's transcripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from speechrnn import corpora
from speechrnn.errors import DataError, ManifestError

_PIECE = 2**16  # bytes, between two calls of ``advance``


def is_manifest(path: Path) -> bool:
    """Whether this is a corpus's name; any other file is text, a sentence a line."""
    return corpora.is_one(path)


def size_of(path: Path) -> int:
    """Bytes that a reader will tell of: a file's; none of a folder or a TensorFlow dataset."""
    return path.stat().st_size if path.is_file() else 0


def read(
    path: Path,
    split: str = "train",
    dev_fraction: float = 0.1,
    advance: Callable[[int], object] = lambda size: None,
) -> Iterator[str]:
    """Sentences as they are written: a text's lines, or a manifest's transcripts of one split.

    Args:
        dev_fraction: of a manifest that names no splits, as ``corpora.read`` takes it.
        advance: is given the bytes of each piece that is done; they sum up to the file's size.

    Raises:
        ManifestError: a manifest that cannot be read, or that has no such split.
        DataError: a text that cannot be read.
    """
    if is_manifest(path):
        yield from _transcripts(path, split, dev_fraction)
        advance(size_of(path))
    else:
        yield from _lines(path, advance)


def _transcripts(path: Path, split: str, dev_fraction: float) -> list[str]:
    utterances = corpora.read(path, dev_fraction)
    found = [utterance.text for utterance in utterances if utterance.split == split]
    if not found:
        known = ", ".join(sorted({utterance.split for utterance in utterances}))
        raise ManifestError(f"{path} has no split {split!r}; it has {known}: name one with --split")
    return found


def _lines(path: Path, advance: Callable[[int], object]) -> Iterator[str]:
    done = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}, line {number} is not UTF-8 text ({error.reason}); save it as "
                        "UTF-8, or unpack it"
                    ) from error
                done += len(line)
                if done > _PIECE:
                    advance(done)
                    done = 0
    except OSError as error:
        raise DataError(f"cannot read the text {path}: {error.strerror}") from error
    advance(done)
