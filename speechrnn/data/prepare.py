"""Corpus -> checked shards, an index and a report of what was left out.

Decoding depends on the recordings alone and is resumed shard by shard. What depends on the
text rules, the alphabet or the model is a cheap pass over the shards' records, so changing
those decodes nothing again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from speechrnn import corpora
from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance
from speechrnn.data import shards
from speechrnn.data.index import Index, Row
from speechrnn.data.utterance import Rejected, Settings, reject
from speechrnn.errors import DataError, PreparedDataError, RecipeError, TranscriptError
from speechrnn.features import reference
from speechrnn.files import write_atomically
from speechrnn.recipe import Recipe
from speechrnn.specs import AlphabetSpec, Statistics, TextRules
from speechrnn.text import Alphabet, frames_needed, normalise

REPORT_FILE = "report.tsv"
STATISTICS_FILE = "statistics.json"
STATISTICS_UTTERANCES = 5_000  # at most: more change the third digit at best
MIN_STD = 1e-3  # a dimension that never moves stays finite when it is divided by this
_REPORT_COLUMNS = ("utterance_id", "path", "split", "reason", "message")


def prepare(recipe: Recipe, progress: bool = True) -> Index:
    """A recipe's manifest -> shards, index and report under ``recipe.prepared``.

    A rerun redoes only the shards that are missing, damaged or made from something else.
    One bad utterance never stops the others: it is in the report, with its reason. The
    result does not depend on the number of workers.

    Raises:
        ManifestError: the manifest cannot be read.
        DataError: no training utterance is left, or a worker process died.
        RecipeError: ``data.alphabet`` is no alphabet.
    """
    root, data = recipe.prepared, recipe.data
    listed = corpora.read(data.manifest, data.dev_fraction)
    utterances, later = manifest.without_duplicates(listed)
    rejected = [reject(utterance, "duplicate_id", message) for utterance, message in later]
    settings = Settings(recipe.features.sample_rate, data.min_seconds, data.max_seconds)
    plans = shards.plan(utterances, settings, data.shard_utterances)
    written = _bring_up_to_date(root, plans, settings, data.workers, progress)

    by_id = {utterance.utterance_id: utterance for utterance in utterances}
    rejected += [each for shard in written for each in shard.rejected]
    try:
        rows = _feasible(recipe, _rows(written, by_id, recipe.text), by_id, rejected)
        alphabet = _alphabet(recipe, _with_training(rows, rejected, root))
        rows = _with_training(_spelled(alphabet, rows, by_id, rejected), rejected, root)
    finally:
        _write_report(root, rejected)

    index = Index(
        root=root,
        sample_rate=settings.sample_rate,
        alphabet=alphabet.spec,
        statistics=None,
        corpus_sha256=_corpus_sha256(rows),
        shards=tuple(shard.shard for shard in written),
        rows=tuple(rows),
        rejected=dict(sorted(Counter(each.reason for each in rejected).items())),
    )
    if recipe.features.normalisation == "global":
        index = replace(index, statistics=_statistics(recipe, index))
    index.save()
    shards.remove_stale(root, plans)
    return index


def rejections(root: str | os.PathLike[str]) -> list[Rejected]:
    """Read back the report of a prepared corpus: every utterance left out, and why.

    Raises:
        PreparedDataError: there is no report, or not one of this version.
    """
    path = Path(root) / REPORT_FILE
    try:
        header, *lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        if header != "\t".join(_REPORT_COLUMNS):
            raise ValueError(f"its columns are {header!r}")
        return [Rejected(*line.split("\t")) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise PreparedDataError(f"cannot read {path} ({error}); run speechrnn prepare") from error


def _bring_up_to_date(
    root: Path, plans: Sequence[shards.Plan], settings: Settings, workers: int, progress: bool
) -> list[shards.Written]:
    """The planned shards, of which only those are written that are not there and sound."""
    found = {planned.name: shards.current(root, planned) for planned in plans}
    missing = [planned for planned in plans if found[planned.name] is None]
    total = sum(len(planned.utterances) for planned in missing)
    with _progress_bar("preparing", total, progress and total > 0) as advance:
        fresh = shards.write(root, missing, settings, workers or os.cpu_count() or 1, advance)
    return [found[planned.name] or fresh[planned.name] for planned in plans]


def _rows(
    written: Sequence[shards.Written], by_id: Mapping[str, Utterance], rules: TextRules
) -> list[Row]:
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


def _with_training(rows: list[Row], rejected: Sequence[Rejected], root: Path) -> list[Row]:
    if any(row.split == "train" for row in rows):
        return rows
    reasons = Counter(each.reason for each in rejected if each.split == "train").most_common()
    found = ", ".join(f"{count} {reason}" for reason, count in reasons)
    raise DataError(
        "no training utterance is left"
        + (f" (rejected: {found}; see {root / REPORT_FILE})" if found else "")
        + ". Correct these, or give some utterance the split 'train'"
    )


def _corpus_sha256(rows: Iterable[Row]) -> str:
    lines = sorted(f"{row.utterance_id}\t{row.split}\t{row.text}\t{row.crc32}\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _write_report(root: Path, rejected: Iterable[Rejected]) -> None:
    lines = ["\t".join(_REPORT_COLUMNS)]
    for each in rejected:
        lines.append("\t".join(" ".join(value.split()) for value in astuple(each)))
    root.mkdir(parents=True, exist_ok=True)
    write_atomically(root / REPORT_FILE, ("\n".join(lines) + "\n").encode())


def _statistics(recipe: Recipe, index: Index) -> Statistics:
    """Mean and deviation of each feature over the training set, or over evenly spaced rows of it.

    Kept beside the index under a key of all that they depend on.
    """
    training = index.split("train")
    chosen = training[:: -(-len(training) // STATISTICS_UTTERANCES)]
    told = [recipe.fingerprint("features"), [row.crc32 for row in chosen]]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    path = index.root / STATISTICS_FILE
    try:
        cached = json.loads(path.read_bytes())
        if cached["key"] == key:
            return Statistics(tuple(cached["mean"]), tuple(cached["std"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there or not readable: measure again
    mean, std = _moments(recipe, index, chosen)
    content = {"key": key, "mean": mean.tolist(), "std": std.tolist()}
    write_atomically(path, json.dumps(content).encode())
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()))


def _moments(recipe: Recipe, index: Index, rows: Iterable[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over all frames of the rows: (dimension,) float64 each."""
    frames = 0
    total = np.zeros(recipe.features.dimension)
    squares = np.zeros_like(total)
    for row in rows:
        waveform = shards.waveform_of(index.read_payload(row))
        features = reference.features(waveform, recipe.features).astype(np.float64)
        frames += len(features)
        total += features.sum(axis=0)
        squares += np.square(features).sum(axis=0)
    mean = total / frames
    variance = np.maximum(squares / frames - mean**2, 0)
    return mean, np.maximum(np.sqrt(variance), MIN_STD)


@contextmanager
def _progress_bar(title: str, total: int, shown: bool) -> Iterator[Callable[[float], None]]:
    """A bar on stderr; yields what to call after each utterance with its seconds of audio."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f} s of audio a second"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(title, total=total, speed=0.0)
        started, done = time.monotonic(), 0.0

        def advance(seconds: float) -> None:
            nonlocal done
            done += seconds
            bar.update(task, advance=1, speed=done / max(time.monotonic() - started, 1e-3))

        yield advance
