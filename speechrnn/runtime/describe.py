"""What a path holds: a model, a run or a corpus, as it is listed or as it is prepared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn import corpora
from speechrnn.data.columns import Row
from speechrnn.data.index import INDEX_FILE, Index
from speechrnn.decoding import carried
from speechrnn.files import LANGUAGE_MODEL, MODEL, read_run
from speechrnn.language import CharacterLMSpec
from speechrnn.runtime import BaseRecognizer, open_model
from speechrnn.runtime.benchmark import size_of


def describe(path: str | Path) -> dict[str, Any]:
    """Facts by name, plain data.

    Raises:
        ManifestError: a corpus that cannot be read.
        PreparedDataError: a prepared corpus whose index is damaged.
        ModelError: no model, or a damaged one.
    """
    source, path = str(path), Path(path)
    if (path / MODEL).is_file():
        description, _ = read_run(path)
        if description["kind"] == LANGUAGE_MODEL:
            return _language_model(path, description)
    elif (path / INDEX_FILE).is_file():
        return _prepared(Index.load(path))
    elif corpora.is_one(source):
        return _corpus(source)
    return _model(path, open_model(path, decoder=None))


def _corpus(source: str) -> dict[str, Any]:
    utterances = corpora.read(source)
    facts: dict[str, Any] = {"kind": "manifest", "path": source, "utterances": len(utterances)}
    for split, count in sorted(Counter(u.split for u in utterances).items()):
        mine = [u for u in utterances if u.split == split]
        speakers = {u.speaker for u in mine if u.speaker}
        durations = [u.duration_s for u in mine if u.duration_s is not None]
        hours = f", {sum(durations) / 3600:.2f} h" if len(durations) == count else ""
        facts[f"split {split}"] = f"{count} utterances, {len(speakers)} speakers{hours}"
    facts["words"] = len({word for u in utterances for word in u.text.split()})
    return facts


def prepared_rows(path: str | Path) -> Iterator[str]:
    """The utterances of a prepared corpus, in the order of its shards, as lines of TSV.

    Raises:
        PreparedDataError: there is none in this folder, or its index is damaged.
    """
    index = Index.load(path)
    yield "\t".join([*(column.name for column in fields(Row)), "duration_s"])
    for row in index.rows:
        values = [*astuple(row), f"{row.samples / index.sample_rate:.3f}"]
        yield "\t".join(" ".join(str(value).split()) for value in values)


def _prepared(index: Index) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "kind": "prepared corpus",
        "path": str(index.root),
        "size_bytes": sum(shard.size for shard in index.shards),
        "shards": len(index.shards),
        "sample_rate": index.sample_rate,
        "alphabet": "".join(index.alphabet.symbols),
        "corpus_sha256": index.corpus_sha256,
    }
    for split in index.splits:
        rows = index.split(split)
        speakers = len(np.unique(rows.column("speaker")))
        hours = f"{index.seconds(split) / 3600:.2f} h"
        facts[f"split {split}"] = f"{len(rows)} utterances, {speakers} speakers, {hours}"
    return {**facts, "rejected": index.rejected}


def _language_model(path: Path, description: dict[str, Any]) -> dict[str, Any]:
    spec = CharacterLMSpec.from_dict(description["spec"])
    return {
        "kind": LANGUAGE_MODEL,
        "path": str(path),
        "size_bytes": size_of(path),
        "alphabet": "".join(spec.alphabet.symbols),
        "cell": spec.model.cell,
        "layers": spec.model.layers,
        "units": spec.model.units,
        "embedding": spec.model.embedding,
        **description["card"],
    }


def _model(path: Path, recogniser: BaseRecognizer) -> dict[str, Any]:
    spec = recogniser.spec
    return {
        "kind": recogniser.kind,
        "path": str(path),
        "size_bytes": size_of(path),
        "alphabet": "".join(spec.alphabet.symbols),
        "cell": spec.model.cell,
        "layers": spec.model.layers,
        "units": spec.model.units,
        "bidirectional": spec.model.bidirectional,
        "features": spec.features.kind,
        "sample_rate": spec.features.sample_rate,
        "ms_per_output_frame": 1000 * spec.seconds_per_output_frame,
        **recogniser.card,
        **_shown(recogniser.card),
    }


def _shown(card: dict[str, Any]) -> dict[str, Any]:
    """A card without the files in it."""
    if carried.KEY not in card:
        return card
    return {**card, carried.KEY: carried.summary(card[carried.KEY])}
