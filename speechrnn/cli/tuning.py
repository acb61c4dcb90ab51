"""A search that suits a model: tune."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechrnn.cli.app import (
    CorpusName,
    Json,
    ModelPath,
    answer,
    app,
    complain,
    console,
    examples,
    needs_extra,
)
from speechrnn.cli.decoder import Asked, searching, tell_remarks
from speechrnn.errors import DataError, UsageError

if TYPE_CHECKING:
    from speechrnn.corpora.manifest import Utterance
    from speechrnn.evaluation.tune import Example
    from speechrnn.runtime import BaseRecognizer


@app.command(
    epilog=examples(
        "speechrnn tune runs/an4 data/an4/manifest.tsv --lm lm.arpa -o decoder.json",
        "speechrnn tune model.tflite mine.csv --lexicon words.txt --lm lm.arpa -o decoder.json",
    )
)
@searching("lm", "lexicon", "neural_lm", "rescore_lm", "hotword", "beam")
def tune(
    model: ModelPath,
    manifest: CorpusName,
    out: Annotated[Path, typer.Option("-o", "--out", help="The settings to write, JSON.")],
    split: Annotated[str, typer.Option(help="Of the manifest: what to tune on.")] = "dev",
    trials: Annotated[int, typer.Option(min=1, help="Choices of weights that are tried.")] = 60,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that search; default: one a core.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same settings.")] = 0,
    as_json: Json = False,
    *,
    search: Asked,
) -> None:
    """Find the weights of a language model, the score of a word and the width of the beam.

    The result is for --decoder of evaluate, transcribe and export. "held out" is what the choice
    is worth on speakers that it was not made on; the figures above it are a little kind.
    """
    from rich.progress import Progress

    from speechrnn.decoding import settings as settings_file
    from speechrnn.runtime import open_model

    tuning = needs_extra("tuning a decoder", "tune", "speechrnn.evaluation.tune")
    if not search.values:
        raise UsageError("there is nothing to tune; name --lm, --lexicon or both")
    if out.is_dir():
        raise typer.BadParameter(f"{out} is a folder; name a file", param_hint="--out")
    base = search.settings()
    recogniser = open_model(model, decoder=None)
    recogniser.decode_with(base)
    tell_remarks(recogniser)
    tuning.ranges(recogniser.alphabet, base)  # before anything is listened to
    with Progress(console=console, transient=True) as bar:
        heard = bar.add_task("listening", total=None)
        utterances = _utterances(manifest, split, recogniser)
        bar.update(heard, total=len(utterances))
        found = _examples(recogniser, utterances, lambda: bar.advance(heard))
        task = bar.add_task("searching", total=None)
        tuned = tuning.tune(
            recogniser.alphabet,
            found,
            base,
            trials=trials,
            jobs=jobs or len(os.sched_getaffinity(0)),
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    settings_file.save(out, tuned.settings, {"split": split, **tuned.report()})
    answer(
        {"path": str(out), "settings": tuned.settings.to_dict(), **tuned.report()},
        f"{tuned.table()}\n{out}",
        as_json,
    )
    if tuned.rates.wer > tuned.greedy.wer:
        console.print(
            "warning: this search makes more errors than none at all; does the lexicon have the "
            "words that are said, and is the language model of such text?",
            style="red",
            highlight=False,
        )
    if len(found) < len(utterances):
        raise DataError(f"{len(utterances) - len(found)} recordings could not be read")


def _utterances(manifest: str, split: str, recogniser: BaseRecognizer) -> list[Utterance]:
    from speechrnn import corpora
    from speechrnn.corpora import manifest as manifests

    utterances = corpora.read(manifest, recogniser.card.get("dev_fraction", 0.1))
    chosen_ones = [u for u in utterances if u.split == split]
    if not chosen_ones:
        known = ", ".join(sorted({u.split for u in utterances}))
        raise DataError(f"{manifest} has no split {split!r}; it has {known}")
    return manifests.without_duplicates(chosen_ones)[0]


def _examples(
    recogniser: BaseRecognizer, utterances: list[Utterance], advance: Callable[[], object]
) -> list[Example]:
    """What the network gives of each recording that can be read."""
    from speechrnn.evaluation.transcripts import given
    from speechrnn.evaluation.tune import Example

    found = []
    for utterance in utterances:
        advance()
        try:
            log_probs, _ = recogniser.reader.quiet(
                recogniser.listen(given(utterance, recogniser)).log_probs
            )
        except DataError as error:
            complain(str(error))
            continue
        found.append(Example(utterance.utterance_id, log_probs, utterance.text, utterance.speaker))
    return found
