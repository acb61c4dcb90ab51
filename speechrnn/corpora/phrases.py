"""Phrase lists: what is to be spoken or recorded, one phrase a line.

    # the lamps
    turn on the kitchen light
    turn off the kitchen light<TAB>test
    h e l l o<TAB>train<TAB>letters

The optional second column pins a phrase to a split; the optional third one names its group,
which the ids of its utterances start with.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechrnn.errors import DataError

SPLITS = ("train", "dev", "test")

_GROUP = re.compile(r"\w*")  # it becomes part of file names


@dataclass(frozen=True)
class Phrase:
    """One line of a list; an empty ``split`` leaves the choice to the program."""

    text: str
    split: str = ""
    group: str = ""


def read(path: str | Path) -> list[Phrase]:
    """A UTF-8 phrase list -> its phrases, in order; ``#`` lines and empty ones are skipped.

    Any run of white space in a phrase becomes one space.

    Raises:
        DataError: no such file, not UTF-8, no phrase in it, or a line with an unknown split.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot read the phrase list {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    phrases = [
        _parse(line, f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not phrases:
        raise DataError(f"{path} holds no phrase; write one a line")
    return phrases


def write(path: str | Path, phrases: Iterable[Phrase]) -> None:
    """The list that ``read`` gives back."""
    Path(path).write_text("".join(format_lines(phrases)), encoding="utf-8")


def sha256(phrases: Sequence[Phrase]) -> str:
    """One hash of texts, splits, groups and order."""
    return hashlib.sha256("".join(format_lines(phrases)).encode()).hexdigest()


def format_lines(phrases: Iterable[Phrase]) -> list[str]:
    """The lines of a phrase list, as ``write`` writes them."""
    return [f"{p.text}\t{p.split}\t{p.group}".rstrip("\t") + "\n" for p in phrases]


def _parse(line: str, where: str) -> Phrase:
    columns = [" ".join(column.split()) for column in line.split("\t")]
    text, split, group, *rest = [*columns, "", ""]
    if not text:
        raise DataError(f"{where}: the phrase is empty; write it before the first tab")
    if split and split not in SPLITS:
        raise DataError(f"{where}: the split is {split!r}; write one of {', '.join(SPLITS)}")
    if not _GROUP.fullmatch(group):
        raise DataError(f"{where}: the group is {group!r}; use letters, digits and _ only")
    if any(rest):
        raise DataError(f"{where}: more than three columns; phrase, split and group are read")
    return Phrase(text, split, group)
