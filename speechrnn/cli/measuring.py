"""What a model is worth and what it costs: evaluate, benchmark, info."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from speechrnn.cli.app import (
    CorpusName,
    Json,
    ModelPath,
    answer,
    app,
    console,
    examples,
    needs_training_extra,
)
from speechrnn.cli.decoder import Asked, searching
from speechrnn.errors import DataError


@app.command(
    epilog=examples(
        "speechrnn evaluate runs/an4 data/an4/manifest.tsv --split dev",
        "speechrnn evaluate model.tflite mine.csv --json",
        "speechrnn evaluate model.tflite mine.csv --beam 64 --lexicon words.txt --lm lm.arpa",
        "speechrnn evaluate model.tflite mine.csv --by speaker --by duration",
        "speechrnn evaluate model.tflite mine.csv --report out.html",
    )
)
@searching()
def evaluate(
    model: ModelPath,
    manifest: CorpusName,
    split: Annotated[str | None, typer.Option(help="Only this split of the manifest.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Rates by speaker, duration or a column; repeatable."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page of it, with the worst utterances, as HTML.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that search; default: one a core.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--reliability", metavar="PNG", help="Draw how right sure words are."),
    ] = None,
    as_json: Json = False,
    *,
    search: Asked,
) -> None:
    """Word and character error rates of a model, with a 95 % interval.

    A manifest that names no splits is divided as the model's own was, so that --split dev means
    utterances that it was not trained on.

    Without options of a beam search it takes the best label of each frame, or what `export
    --decoder` put into the model.
    """
    if picture is not None and picture.suffix.lower() != ".png":
        raise typer.BadParameter(f"{picture}: name a .png file", param_hint="--reliability")
    from speechrnn import corpora
    from speechrnn.runtime import open_model

    evaluation = needs_training_extra("evaluating", "speechrnn.evaluation.evaluate")
    recogniser = open_model(model, decoder=None)
    search.begin(recogniser)
    utterances = corpora.read(manifest, recogniser.card.get("dev_fraction", 0.1))
    if split is not None:
        known = sorted({u.split for u in utterances})
        utterances = [u for u in utterances if u.split == split]
        if not utterances:
            raise DataError(f"{manifest} has no split {split!r}; it has {', '.join(known)}")
    result = evaluation.evaluate(
        recogniser, utterances, by=by or [], jobs=_jobs(jobs, recogniser.decoder is not None)
    )
    answer(result.to_dict(), result.table(by or []), as_json)
    if report:
        page = needs_training_extra("the report", "speechrnn.evaluation.report")
        title = f"{model.name} on {Path(manifest).name}" + (f", {split}" if split else "")
        with console.status("writing the report"):
            page.write_report(result, utterances, recogniser, report, title)
    if picture is not None:
        _draw(result, picture)
    if result.failures:
        raise DataError(f"{len(result.failures)} recordings could not be transcribed")


def _draw(result: Any, picture: Path) -> None:
    calibration = needs_training_extra("evaluating", "speechrnn.evaluation.calibration")
    if result.confidence is None:
        console.print(f"no word was heard: there is nothing to draw in {picture}", markup=False)
    else:
        calibration.plot(result.confidence, picture)


def _jobs(wanted: int | None, searches: bool) -> int:
    """Without a search there is nothing to divide."""
    return (wanted or len(os.sched_getaffinity(0))) if searches else 1


@app.command(
    epilog=examples(
        "speechrnn benchmark model.tflite",
        "speechrnn benchmark runs/an4 --seconds 30 --json",
        "speechrnn benchmark float32.tflite --compare int8.tflite",
    )
)
def benchmark(
    model: ModelPath,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Length of the test clip.")] = 10,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions; the median counts.")] = 5,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="Another model, measured in turn with this one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Size, load time, latency, real-time factor, peak memory and operations of a model.

    In fresh processes and on one thread, TensorFlow too. With --compare both models are measured
    in turn, round by round, and ratios are OTHER / MODEL.
    """
    from rich.progress import Progress

    from speechrnn.runtime import benchmark as costs

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        result: costs.Cost | costs.Comparison
        if compare is None:
            result = costs.measure(model, seconds, runs, show)
        else:
            result = costs.compare(model, compare, seconds, runs, show)
    answer(result.to_dict(), result.table(), as_json)


@app.command(
    epilog=examples(
        "speechrnn info model.tflite",
        "speechrnn info mine.csv",
        "speechrnn info runs/an4/prepared --rows > utterances.tsv",
    )
)
def info(
    path: Annotated[str, typer.Argument(help="A model, a run directory or a corpus.")],
    rows: Annotated[
        bool, typer.Option("--rows", help="Of a prepared corpus: its utterances, as TSV.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What a model, a run or a corpus is and holds.

    A manifest is told by its name: .tsv, .csv, .json or .jsonl; a TensorFlow dataset by tfds:.
    A prepared corpus is the folder of its shards.
    """
    from speechrnn.runtime.describe import describe, prepared_rows

    if rows:
        for line in prepared_rows(path):
            print(line)
        return
    result = describe(path)
    text = "\n".join(f"{key:22} {value}" for key, value in result.items())
    answer(result, text, as_json)
