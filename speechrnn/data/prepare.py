"""Corpus -> checked shards, an index and a report of what was left out.

Decoding depends on the recordings alone and is resumed shard by shard. What depends on the
text rules, the alphabet or the model is a cheap pass over the shards' records, so changing
those decodes nothing again.

``prepare`` looks at every recording and reads every shard. ``prepared``, with which training
starts, takes what is there where recipe and corpus are as they were and every shard has its size;
what is read later is checked as it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path

from speechrnn import corpora
from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance
from speechrnn.data import pool, shards, spelling, statistics
from speechrnn.data.columns import Rows
from speechrnn.data.index import INDEX_FILE, Index
from speechrnn.data.progress import Bar
from speechrnn.data.utterance import REPORT_FILE, Rejected, Settings, reject
from speechrnn.errors import MachineRefused, PreparedDataError
from speechrnn.files import locked, sha256_of, write_atomically
from speechrnn.recipe import Recipe

MADE_FROM_FILE = "made_from.json"  # what the index was made from; written last
LOCK_FILE = ".lock"
_REPORT_COLUMNS = ("utterance_id", "path", "split", "reason", "message")


def prepare(
    recipe: Recipe, progress: bool = True, runner: str | None = None, options: Sequence[str] = ()
) -> Index:
    """A recipe's manifest -> shards, index and report under ``recipe.prepared``.

    A rerun redoes only the shards that are missing, damaged or made from something else.
    One bad utterance never stops the others: it is in the report, with its reason. The
    result depends neither on the number of workers nor on the runner. Until the new index stands,
    the one before it and all its shards do.

    Args:
        runner: one of Apache Beam's, with ``options`` for Beam; None: processes of this machine.

    Raises:
        ManifestError: the manifest cannot be read.
        DataError: no training utterance is left, or a worker process died.
        RecipeError: ``data.alphabet`` is no alphabet.
        MachineRefused: no space, no permission; or the runner failed.
    """
    root = recipe.prepared
    with _refusals_named(root):
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / LOCK_FILE):
            try:
                return _prepare(recipe, progress, runner, options)
            finally:
                shards.remove_partials(root)


def prepared(recipe: Recipe, progress: bool = True) -> Index:
    """The index of a recipe, prepared first where that is not done.

    Neither recordings nor the shards' bytes are looked at where recipe and manifest are as they
    were when it was made: a day's audio takes as long as a year's.

    Raises as ``prepare`` does.
    """
    root = recipe.prepared
    try:
        told = json.loads((root / MADE_FROM_FILE).read_bytes())
        if told == _made_from(recipe):
            index = Index.load(root)
            if all((root / shard.name).stat().st_size == shard.size for shard in index.shards):
                return index
    except (OSError, ValueError, PreparedDataError):
        pass  # whatever is missing, prepare knows what to do
    return prepare(recipe, progress)


@contextmanager
def _refusals_named(root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, MemoryError) as error:
        raise MachineRefused(
            f"the machine refused: {str(error) or type(error).__name__}. What {root} held before "
            "is as it was, and shards that were finished stay: see to space, permissions and "
            "memory, and prepare again, which goes on"
        ) from error


def _prepare(recipe: Recipe, progress: bool, runner: str | None, options: Sequence[str]) -> Index:
    root, data = recipe.prepared, recipe.data
    shards.remove_partials(root)
    listed = [_absolute(each) for each in corpora.read(data.manifest, data.dev_fraction)]
    utterances, later = manifest.without_duplicates(listed)
    rejected = [reject(utterance, "duplicate_id", message) for utterance, message in later]
    settings = Settings(recipe.features.sample_rate, data.min_seconds, data.max_seconds)
    plans = shards.plan(utterances, settings, data.shard_utterances)
    with Bar("preparing", progress) as bar:
        if runner is None:
            written = pool.bring_up_to_date(root, plans, settings, _workers(recipe), bar)
        else:
            from speechrnn.data import beam  # an extra of its own

            written = beam.bring_up_to_date(root, plans, settings, runner, options, bar)
    index = _index(recipe, written, utterances, rejected)
    index.save()
    write_atomically(root / MADE_FROM_FILE, json.dumps(_made_from(recipe)).encode())
    shards.remove_stale(root, plans)
    return index


def _workers(recipe: Recipe) -> int:
    return recipe.data.workers or os.cpu_count() or 1


def _absolute(utterance: Utterance) -> Utterance:
    """Whose recording other processes find, wherever they run."""
    if utterance.path.is_absolute():
        return utterance
    return replace(utterance, path=utterance.path.absolute())


def _made_from(recipe: Recipe) -> dict[str, str]:
    """What tells whether an index is still that of a recipe; raises OSError where it cannot."""
    data = recipe.model_dump(mode="json", include={"data", "text", "features"})
    for name in ("prepared", "batch_seconds", "workers"):
        del data["data"][name]
    told = [data, recipe.model.time_stride, shards.FORMAT]
    return {
        "recipe": hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest(),
        "manifest": corpora.fingerprint(recipe.data.manifest),
        "index": sha256_of(recipe.prepared / INDEX_FILE),
    }


def _index(
    recipe: Recipe,
    written: Sequence[shards.Written],
    utterances: Sequence[Utterance],
    rejected: list[Rejected],
) -> Index:
    """The index of what was written; all that it leaves out is reported."""
    root = recipe.prepared
    rejected += [each for shard in written for each in shard.rejected]
    try:
        rows, alphabet = spelling.rows(recipe, written, utterances, rejected)
    finally:
        _write_report(root, rejected)
    index = Index(
        root=root,
        sample_rate=recipe.features.sample_rate,
        alphabet=alphabet.spec,
        statistics=None,
        corpus_sha256=spelling.sha256(rows),
        shards=tuple(shard.shard for shard in written),
        rows=Rows.of(rows),
        rejected=dict(sorted(Counter(each.reason for each in rejected).items())),
    )
    if recipe.features.normalisation == "global":
        measured = statistics.of_training(recipe, index, _workers(recipe))
        index = replace(index, statistics=measured)
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


def _write_report(root: Path, rejected: Iterable[Rejected]) -> None:
    lines = ["\t".join(_REPORT_COLUMNS)]
    for each in rejected:
        lines.append("\t".join(" ".join(value.split()) for value in astuple(each)))
    root.mkdir(parents=True, exist_ok=True)
    write_atomically(root / REPORT_FILE, ("\n".join(lines) + "\n").encode())
