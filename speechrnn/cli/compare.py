"""Which of two models is better: compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechrnn.cli.app import Json, answer, app, examples, needs_training_extra


@app.command(
    epilog=examples(
        "speechrnn evaluate old.tflite mine.csv --json > old.json",
        "speechrnn evaluate new.tflite mine.csv --json > new.json",
        "speechrnn compare old.json new.json",
    )
)
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="What evaluate --json printed.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="The same, of the other model.")],
    common: Annotated[
        bool, typer.Option("--common", help="Only the utterances that are in both.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Whether B is better than A: the difference, its 95 % interval and the matched-pairs test.

    Both must have evaluated the same utterances.
    """
    comparing = needs_training_extra("comparing", "speechrnn.evaluation.compare")
    result = comparing.compare(comparing.load(a), comparing.load(b), common)
    answer(result.to_dict(), result.table(), as_json)
