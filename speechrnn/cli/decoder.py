"""The options of a beam search, which evaluate, transcribe, tune and export share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechrnn.cli.app import console

if TYPE_CHECKING:
    from speechrnn.runtime import BaseRecognizer, Decoder

DecoderFile = Annotated[
    Path | None,
    typer.Option("--decoder", metavar="JSON", help="Settings that `speechrnn tune` wrote."),
]
Beam = Annotated[
    int | None,
    typer.Option("--beam", min=1, help="Search with so many hypotheses; 64 is plenty."),
]
Lm = Annotated[
    Path | None,
    typer.Option(metavar="ARPA", help="Search with a model of words or characters."),
]
LmWeight = Annotated[float | None, typer.Option(help="Of its natural logarithms; default 0.5.")]
WordScore = Annotated[float | None, typer.Option(help="For each word, in nats; default 0.")]
LexiconFile = Annotated[
    Path | None,
    typer.Option("--lexicon", metavar="FILE", help="Hear these words only, one a line."),
]
NeuralLm = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Search with a recurrent character language model."),
]
RescoreLm = Annotated[
    Path | None,
    typer.Option("--rescore", metavar="RUN", help="Choose by one among what a search has left."),
]
Hotwords = Annotated[
    list[str] | None,
    typer.Option(
        "--hotword", metavar="PHRASE[:NATS]", help="Prefer this word or phrase; repeatable."
    ),
]
Greedy = Annotated[
    bool, typer.Option("--greedy", help="No search, even where the model carries settings.")
]

DEFAULT_BOOST = 3.0  # nats: a word that is twenty times less likely is heard instead


def chosen(file: Path | None, greedy: bool, hotwords: list[str] | None, **given: Any) -> Decoder:
    """What the options ask for: settings, "carried" where none is given, None for --greedy.

    Options go before the values of --decoder's file.
    """
    from speechrnn.decoding import settings

    values = {name: value for name, value in given.items() if value is not None}
    if hotwords:
        values["hotwords"] = dict(map(_hotword, hotwords))
    if greedy and (file or values):
        raise typer.BadParameter("it leaves no search to set", param_hint="--greedy")
    if greedy:
        return None
    if file is None and not values:
        return "carried"
    base = settings.load(file) if file else settings.DecoderSettings()
    if "lm" in values or "neural_lm" in values:  # in place of the file's, of either kind
        values = {"lm": None, "neural_lm": None, **values}
    return dataclasses.replace(base, **values)


def tell_remarks(recogniser: BaseRecognizer) -> None:
    """On stderr, what a user should know of the search's files."""
    for remark in recogniser.decoder.remarks if recogniser.decoder else ():
        console.print(f"note: {remark}", markup=False, highlight=False)


def _hotword(written: str) -> tuple[str, float]:
    phrase, colon, boost = written.rpartition(":")
    if not colon:
        return written, DEFAULT_BOOST
    try:
        return phrase, float(boost)
    except ValueError as error:
        raise typer.BadParameter(
            f"{written!r}: {boost!r} is no number; write PHRASE or PHRASE:NATS, as 'lamp:2.5'",
            param_hint="--hotword",
        ) from error
