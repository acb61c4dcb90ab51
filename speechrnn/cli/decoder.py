"""The options of a beam search, which evaluate, transcribe, tune and export share."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechrnn.cli.app import console

if TYPE_CHECKING:
    from speechrnn.decoding.settings import DecoderSettings
    from speechrnn.runtime import BaseRecognizer

DecoderFile = Annotated[
    Path | None,
    typer.Option("--decoder", metavar="JSON", help="Settings that `speechrnn tune` wrote."),
]
# Name of an option's value -> its type and help; the default of each is None.
_OPTIONS: dict[str, Any] = {
    "decoder": DecoderFile,
    "beam": Annotated[
        int | None, typer.Option(min=1, help="Search with so many hypotheses; 64 is plenty.")
    ],
    "lm": Annotated[
        Path | None,
        typer.Option(metavar="ARPA", help="Search with a model of words or characters."),
    ],
    "lm_weight": Annotated[
        float | None, typer.Option(help="Of its natural logarithms; default 0.5.")
    ],
    "word_score": Annotated[float | None, typer.Option(help="For each word, in nats; default 0.")],
    "lexicon": Annotated[
        Path | None, typer.Option(metavar="FILE", help="Hear these words only, one a line.")
    ],
    "neural_lm": Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Search with a recurrent character language model."),
    ],
    "rescore_lm": Annotated[
        Path | None,
        typer.Option("--rescore", metavar="RUN", help="Let one choose among what a search leaves."),
    ],
    "rescore_weight": Annotated[
        float | None, typer.Option(help="Of --rescore's natural logarithms; default 0.4.")
    ],
    "hotword": Annotated[
        list[str] | None,
        typer.Option(metavar="PHRASE[:NATS]", help="Prefer this word or phrase; repeatable."),
    ],
    "greedy": Annotated[
        bool | None,
        typer.Option("--greedy", help="No search, even where the model carries settings."),
    ],
}

DEFAULT_BOOST = 3.0  # nats: a word that is twenty times less likely is heard instead


def searching(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with options of a search, all of them or those named: it gets what they ask for as
    ``search``."""
    options = {name: _OPTIONS[name] for name in names or _OPTIONS}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_search(*arguments: Any, **given: Any) -> None:
            asked = {name: given.pop(name) for name in options}
            command(*arguments, search=_asked(**asked), **given)

        signature = inspect.signature(command, eval_str=True)
        own = [each for name, each in signature.parameters.items() if name != "search"]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in options.items()
        ]
        own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        # typer makes the command line of these.
        with_search.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        with_search.__annotations__ = {each.name: each.annotation for each in [*own, *added]}
        return with_search

    return decorate


@dataclass(frozen=True)
class Asked:
    """What the options ask for. Those of single values go before --decoder's file, and that before
    what the model carries."""

    file: Path | None
    greedy: bool
    values: Mapping[str, Any]

    def begin(self, recogniser: BaseRecognizer) -> None:
        """Let the recogniser search like this, and tell the remarks."""
        if self.greedy:
            recogniser.decode_with(None)
        elif self.file is None and not self.values:
            recogniser.decode_with("carried")
        else:
            recogniser.decode_with(self.settings(recogniser.carried()))
        tell_remarks(recogniser)

    def settings(self, carried: DecoderSettings | None = None) -> DecoderSettings:
        """The settings of a search, on top of those that a model carries.

        Raises:
            DataError, UsageError: as ``settings.load`` does.
        """
        from speechrnn.decoding import settings

        base = settings.load(self.file) if self.file else carried or settings.DecoderSettings()
        values = dict(self.values)
        if "lm" in values or "neural_lm" in values:  # in place of the other kind too
            values = {"lm": None, "neural_lm": None, **values}
        found = dataclasses.replace(base, **values)
        if "lm_weight" in values and not (found.lm or found.neural_lm):
            raise typer.BadParameter("it weighs no language model", param_hint="--lm-weight")
        if "rescore_weight" in values and not found.rescore_lm:
            raise typer.BadParameter("it weighs no --rescore", param_hint="--rescore-weight")
        return found


def _asked(
    decoder: Path | None = None,
    greedy: bool | None = None,
    hotword: list[str] | None = None,
    **given: Any,
) -> Asked:
    values = {name: value for name, value in given.items() if value is not None}
    if hotword:
        values["hotwords"] = dict(map(_hotword, hotword))
    if greedy and (decoder or values):
        raise typer.BadParameter("it leaves no search to set", param_hint="--greedy")
    return Asked(decoder, bool(greedy), values)


def tell_remarks(recogniser: BaseRecognizer) -> None:
    """On stderr, what a user should know of a search's files."""
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
