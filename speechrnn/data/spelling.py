"""Decoded utterances -> those that can be learned: their text in the alphabet, feasible for CTC.

What depends on the text rules, the alphabet or the model is here, and cheap: nothing is decoded.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from speechrnn.corpora.utterance import Utterance
from speechrnn.data.columns import Row
from speechrnn.data.shards import Written
from speechrnn.data.utterance import REPORT_FILE, Rejected, reject
from speechrnn.errors import DataError, RecipeError, TranscriptError
from speechrnn.recipe import Recipe
from speechrnn.specs import AlphabetSpec, TextRules
from speechrnn.text import Alphabet, frames_needed, normalise


def rows(
    recipe: Recipe,
    written: Sequence[Written],
    utterances: Sequence[Utterance],
    rejected: list[Rejected],
) -> tuple[list[Row], Alphabet]:
    """The rows of an index, in the order of the shards, and its alphabet; the utterances that
    cannot be learned are appended to ``rejected``.

    Raises:
        DataError: no training utterance is left.
        RecipeError: ``data.alphabet`` is no alphabet.
    """
    by_id = {utterance.utterance_id: utterance for utterance in utterances}
    found = _feasible(recipe, _rows(written, by_id, recipe.text), by_id, rejected)
    report = recipe.prepared / REPORT_FILE
    alphabet = _alphabet(recipe, _with_training(found, rejected, report))
    found = _spelled(alphabet, found, by_id, rejected)
    return _with_training(found, rejected, report), alphabet


def sha256(rows: Iterable[Row]) -> str:
    """Of the content of rows, in any order and however they are sharded."""
    lines = sorted(f"{row.utterance_id}\t{row.split}\t{row.text}\t{row.crc32}\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _rows(
    written: Sequence[Written], by_id: Mapping[str, Utterance], rules: TextRules
) -> list[Row]:
    """A row for each record, in the order of the shards."""
    rows = []
    for number, shard in enumerate(written):
        for record in shard.records:
            told = by_id[record.utterance_id]
            rows.append(
                Row(
                    utterance_id=told.utterance_id,
                    split=told.split,
                    speaker=told.speaker,
                    shard=number,
                    offset=record.offset,
                    length=record.length,
                    crc32=record.crc32,
                    samples=record.samples,
                    text=normalise(told.text, rules),
                )
            )
    return rows


def _feasible(
    recipe: Recipe, rows: Iterable[Row], by_id: Mapping[str, Utterance], rejected: list[Rejected]
) -> list[Row]:
    """The rows that CTC can write in the frames their audio gives; the others are rejected."""
    kept = []
    for row in rows:
        needed = frames_needed([ord(char) for char in row.text])
        frames = recipe.model.output_frames(recipe.features.frames(row.samples))
        if needed <= frames:
            kept.append(row)
            continue
        repeats = needed - len(row.text)
        message = (
            f"{row.utterance_id}: {len(row.text)} labels and {repeats} repeats need {needed} "
            f"frames; the model gives {frames}. Check the transcript, lower model.time_stride "
            "or drop the utterance"
        )
        rejected.append(reject(by_id[row.utterance_id], "too_many_labels", message))
    return kept


def _alphabet(recipe: Recipe, rows: Iterable[Row]) -> Alphabet:
    if recipe.data.alphabet is None:
        return Alphabet.derive((row.text for row in rows if row.split == "train"), recipe.text)
    try:
        return Alphabet(AlphabetSpec(tuple(recipe.data.alphabet), recipe.text))
    except ValueError as error:
        raise RecipeError(f"data.alphabet {recipe.data.alphabet!r}: {error}") from error


def _spelled(
    alphabet: Alphabet,
    rows: Iterable[Row],
    by_id: Mapping[str, Utterance],
    rejected: list[Rejected],
) -> list[Row]:
    """The rows whose text the alphabet can write; the others are rejected."""
    kept = []
    for row in rows:
        try:
            alphabet.encode(row.text)
            kept.append(row)
        except TranscriptError as error:
            message = f"{row.utterance_id}: {error}"
            rejected.append(reject(by_id[row.utterance_id], error.reason, message))
    return kept


def _with_training(rows: list[Row], rejected: Sequence[Rejected], report: Path) -> list[Row]:
    if any(row.split == "train" for row in rows):
        return rows
    reasons = Counter(each.reason for each in rejected if each.split == "train").most_common()
    found = ", ".join(f"{count} {reason}" for reason, count in reasons)
    raise DataError(
        "no training utterance is left"
        + (f" (rejected: {found}; see {report})" if found else "")
        + ". Correct these, or give some utterance the split 'train'"
    )
