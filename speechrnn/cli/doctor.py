"""What is wrong with recordings and transcripts: doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechrnn.cli.app import CorpusName, Json, answer, app, console, examples


@app.command(
    epilog=examples(
        "speechrnn doctor mine.csv",
        "speechrnn doctor mine.csv --model runs/mine --report doctor.html",
    )
)
def doctor(
    manifest: CorpusName,
    model: Annotated[
        Path | None,
        typer.Option(help="Also find transcripts that are probably wrong, with this model."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page of it, as HTML.")] = None,
    as_json: Json = False,
) -> None:
    """What is wrong with a corpus: damaged, clipped or silent recordings, odd transcripts, leaks.

    Findings are the answer: the exit code is 0 wherever the manifest could be read.
    """
    from speechrnn import corpora
    from speechrnn.corpora import splits
    from speechrnn.evaluation.doctor import examine
    from speechrnn.runtime import open_model

    recogniser = open_model(model, decoder=None) if model else None
    fraction = recogniser.card.get("dev_fraction", 0.1) if recogniser else 0.1
    utterances = corpora.unsplit(manifest)
    # What is drawn for a corpus without splits is no fault of the corpus's.
    if any(utterance.split for utterance in utterances):
        utterances = splits.drawn(utterances, fraction)
    found = examine(utterances, recogniser)
    answer(found.to_dict(), found.table(), as_json)
    if report:
        from speechrnn.evaluation.doctor_page import write_page

        write_page(found, report, title=manifest)
        console.print(f"report: {report}", markup=False, highlight=False)
