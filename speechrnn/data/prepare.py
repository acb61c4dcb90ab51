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

from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance
from speechrnn.data import shards
from speechrnn.data.index import Index, Row, write_atomically
from speechrnn.data.utterance import Rejected, Settings, reject
from speechrnn.errors import DataError, PreparedDataError, RecipeError, TranscriptError
from speechrnn.features import reference
from speechrnn.recipe import Recipe
from speechrnn.specs import AlphabetSpec, Statistics
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
    listed = manifest.read(data.manifest, data.dev_fraction)
    utterances, rejected = _without_duplicates(listed)
    settings = Settings(recipe.features.sample_rate, data.min_seconds, data.max_seconds)
    plans = shards.plan(utterances, settings, data.shard_utterances)
    written = _bring_up_to_date(root, plans, settings, data.workers, progress)

    rejected += [each for shard in written for each in shard.rejected]
    rows = _rows(written, {utterance.utterance_id: utterance for utterance in utterances})
    paths = {utterance.utterance_id: str(utterance.path) for utterance in utterances}
    rows, alphabet = _check_transcripts(recipe, rows, paths, rejected)
    _write_report(root, rejected)
    _require_training(rows, rejected, root)
    index = Index(
        root=root,
        sample_rate=settings.sample_rate,
        alphabet=alphabet,
        statistics=None,
        corpus_sha256=_corpus_sha256(rows),
        shards=tuple(shard.shard for shard in written),
        rows=tuple(rows),
        rejected=dict(sorted(Counter(each.reason for each in rejected).items())),
    )
    index = replace(index, statistics=_statistics(recipe, index))
    index.save()
    shards.remove_stale(root, plans)
    return index
