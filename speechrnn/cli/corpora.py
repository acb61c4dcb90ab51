"""Recordings that are yet to be made: synth, record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechrnn.cli.app import app, console, examples

Phrases = Annotated[
    Path, typer.Argument(help="One phrase a line; a tab and train, dev or test pins its split.")
]


@app.command(
    epilog=examples(
        "speechrnn synth phrases.txt corpus",
        "speechrnn synth phrases.txt corpus --language el --per-phrase 20",
    )
)
def synth(
    phrases: Phrases,
    out: Annotated[Path, typer.Argument(help="The folder for the corpus.")],
    language: Annotated[
        str, typer.Option(help="A language of espeak-ng: en-us, el, hi.")
    ] = "en-us",
    per_phrase: Annotated[int, typer.Option(min=1, help="Times each phrase is spoken.")] = 10,
    seed: Annotated[int, typer.Option(help="The same seed gives the same manifest.")] = 0,
) -> None:
    """Speak phrases with many synthetic voices into a corpus with a manifest."""
    from rich.progress import Progress

    from speechrnn.corpora import phrases as phrase_lists
    from speechrnn.corpora.synth import synthesise

    with Progress(console=console) as bar:
        task = bar.add_task("speaking", total=None)
        manifest = synthesise(
            phrase_lists.read(phrases),
            out,
            language=language,
            per_phrase=per_phrase,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(manifest)


@app.command(epilog=examples("speechrnn record phrases.txt corpus --speaker ada"))
def record(
    phrases: Phrases,
    out: Annotated[Path, typer.Argument(help="The folder for the corpus.")],
    speaker: Annotated[str, typer.Option(help="Who speaks.")] = "me",
    device: Annotated[str | None, typer.Option(help="Microphone; default: the system's.")] = None,
) -> None:
    """Record phrases from a microphone, one after another, into a corpus with a manifest."""
    from speechrnn.corpora import phrases as phrase_lists
    from speechrnn.corpora.record import SoundDevice
    from speechrnn.corpora.record import record as record_phrases

    outcome = record_phrases(
        phrase_lists.read(phrases), out, speaker=speaker, device=SoundDevice(device)
    )
    console.print(f"{outcome.recorded} recorded, {outcome.missing} still to record")
    print(outcome.manifest)
