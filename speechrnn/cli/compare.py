"""Which of two models is better: compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechrnn.cli.app import Json, answer, app, examples, needs_training_extra


@app.command(
    epilog=examples(
        "speechrnn compare old.json new.json", "speechrnn compare old.json new.json --common --json"
    )
)
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The results of one model.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Those of the other.")],
    common: Annotated[
        bool, typer.Option("--common", help="Only the utterances that are in both.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Whether B is better than A: the difference, its 95 % interval and the matched-pairs test.

    Each is what evaluate --json printed, of the same utterances.
    """
    comparing = needs_training_extra("comparing", "speechrnn.evaluation.compare")
    result = comparing.compare(comparing.load(a), comparing.load(b), common)
    answer(result.to_dict(), result.table(), as_json)
