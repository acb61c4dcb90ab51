"""What is wrong with recordings and transcripts: doctor."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from speechrnn.cli.app import Json, ManifestPath, answer, app, console, examples


@app.command(
    epilog=examples(
        "speechrnn doctor mine.csv",
        "speechrnn doctor mine.csv --model runs/mine --report doctor.html",
    )
)
def doctor(
    manifest: ManifestPath,
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
    from speechrnn.corpora import manifest as manifests
    from speechrnn.evaluation.doctor import examine
    from speechrnn.runtime import open_model

    recogniser = open_model(model, decoder=None) if model else None
    fraction = recogniser.card.get("dev_fraction", 0.1) if recogniser else 0.1
    utterances = manifests.read(manifest, fraction)
    if not manifests.names_splits(manifest):  # what was drawn is no fault of the manifest's
        utterances = [dataclasses.replace(each, split="") for each in utterances]
    found = examine(utterances, recogniser)
    answer(found.to_dict(), found.table(), as_json)
    if report:
        from speechrnn.evaluation.doctor_page import write_page

        write_page(found, report, title=str(manifest))
        console.print(f"report: {report}", markup=False, highlight=False)
