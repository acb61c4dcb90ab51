"""Texts for a language model -> batches of labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn import corpora
from speechrnn.data.plan import Plan, epoch_plan, slice_of
from speechrnn.errors import DataError, TranscriptError
from speechrnn.language import EDGE, CharacterLMSpec
from speechrnn.recipe import LanguageRecipe, TextsSection
from speechrnn.specs import AlphabetSpec
from speechrnn.text import Alphabet, normalise

TRAIN, DEV = "train", "dev"


@dataclass(frozen=True)
class Texts:
    """What a language model learns from: normalised texts, each in the alphabet.

    ``left_out`` counts the others by reason; ``sha256`` is that of all that is here.
    """

    train: tuple[str, ...]
    dev: tuple[str, ...]
    alphabet: Alphabet
    left_out: dict[str, int]

    @property
    def sha256(self) -> str:
        lines = "\n".join([*self.train, "", *self.dev, "", *self.alphabet.spec.symbols])
        return hashlib.sha256(lines.encode()).hexdigest()


def read(recipe: LanguageRecipe) -> Texts:
    """A recipe's texts, in the order of the manifest, then of the files.

    Of a manifest the splits ``train`` and ``dev`` are read, as a recogniser's are. Where neither
    it nor ``dev_texts`` has a dev text, ``dev_fraction`` of the training texts become dev, drawn
    by their content: all copies of a text fall on one side.

    Raises:
        DataError: no such file, not UTF-8, no text to train on or none to score.
    """
    section = recipe.data
    splits = {TRAIN: _lines(section.train_texts), DEV: _lines(section.dev_texts)}
    if section.manifest is not None:
        utterances = corpora.read(section.manifest, section.dev_fraction)
        for split, lines in splits.items():
            lines[:0] = [u.text for u in utterances if u.split == split]
    normal = {s: [normalise(line, recipe.text) for line in lines] for s, lines in splits.items()}
    if not any(normal[DEV]):
        drawn = {text for text in normal[TRAIN] if _draw(text) < section.dev_fraction}
        normal[DEV] = [text for text in normal[TRAIN] if text in drawn]
        normal[TRAIN] = [text for text in normal[TRAIN] if text not in drawn]
    if section.alphabet is not None:
        alphabet = Alphabet(AlphabetSpec(tuple(section.alphabet), recipe.text))
    else:
        alphabet = Alphabet.derive(normal[TRAIN], recipe.text)
    left_out: Counter[str] = Counter()
    kept = {s: tuple(_usable(normal[s], alphabet, section, left_out)) for s in (TRAIN, DEV)}
    for split, texts in kept.items():
        if not texts:
            raise DataError(
                f"the texts leave none for {split} (left out: {dict(left_out) or 'nothing'}); "
                "correct data.manifest, data.train_texts or data.dev_texts"
            )
    return Texts(kept[TRAIN], kept[DEV], alphabet, dict(left_out))


def _lines(paths: Sequence[Path]) -> list[str]:
    lines: list[str] = []
    for path in paths:
        try:
            lines += path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise DataError(f"cannot read the text {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    return lines


def _draw(text: str) -> float:
    """Uniform in [0, 1), the same for equal texts."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _usable(
    texts: Iterable[str], alphabet: Alphabet, section: TextsSection, left_out: Counter[str]
) -> Iterator[str]:
    for text in texts:
        try:
            alphabet.encode(text)
        except TranscriptError as error:
            left_out[error.reason] += 1
            continue
        if len(text) > section.max_characters:
            left_out["too_long"] += 1
            continue
        yield text


class TextBatches:
    """The batches of one split.

    A batch is a dict of int32 arrays: ``inputs`` (batch, steps), the edge and a text's labels;
    ``targets`` (batch, steps), what follows each of them, at last the edge; ``lengths`` (batch,),
    the valid steps, padded with 0 behind; ``texts`` (batch,), positions in the split;
    ``batch_size``, the texts of the whole batch, of which a worker's share may hold none.
    """

    unit = "characters"

    def __init__(self, recipe: LanguageRecipe, spec: CharacterLMSpec, texts: Sequence[str]):
        self.recipe, self.texts = recipe, texts
        alphabet = Alphabet(spec.alphabet)
        self._labels = [np.array([*alphabet.encode(text), EDGE], np.int32) for text in texts]
        self._lengths = np.array([len(labels) for labels in self._labels], np.int32)

    def amount(self, batch: dict[str, Any]) -> float:
        """Characters in a batch, a text's end being one."""
        return float(batch["lengths"].sum())

    def names(self, batch: dict[str, Any]) -> list[str]:
        return [repr(self.texts[i]) for i in batch["texts"]]

    def verify(self) -> None:
        """All is in memory."""

    def plan(self, epoch: int) -> Plan:
        """The batches of an epoch, as positions in the split."""
        first = epoch == 0 and self.recipe.training.sorted_first_epoch
        return self._plan(self.recipe.seed, epoch, sort=first)

    def epochs(
        self, first: int, end: int, skip: int = 0, worker: int = 0, workers: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches of the epochs from ``first`` to before ``end``, without the first ``skip``; of
        each the part of worker number ``worker`` of ``workers``, which may have no row."""
        for epoch in range(first, end):
            for rows in self.plan(epoch)[skip if epoch == first else 0 :]:
                yield self._batch(slice_of(rows, worker, workers), len(rows))

    def plain(self) -> list[dict[str, np.ndarray]]:
        """Each text once."""
        return [self._batch(rows, len(rows)) for rows in self._plan(seed=0, epoch=0, sort=True)]

    def _plan(self, seed: int, epoch: int, sort: bool) -> Plan:
        return epoch_plan(self._lengths, self.recipe.data.batch_characters, seed, epoch, sort=sort)

    def _batch(self, rows: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
        lengths = self._lengths[rows]
        targets = np.full((len(rows), lengths.max(initial=1)), EDGE, np.int32)
        for target, row in zip(targets, rows, strict=True):
            target[: self._lengths[row]] = self._labels[row]
        inputs = np.roll(targets, 1, axis=1)
        inputs[:, 0] = EDGE
        return {
            "inputs": inputs,
            "targets": targets,
            "lengths": lengths,
            "texts": rows.astype(np.int32),
            "batch_size": np.array(batch_size, np.int32),
        }
