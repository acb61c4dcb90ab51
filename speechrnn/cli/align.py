"""When a known transcript was said, and whether it was: align."""

from __future__ import annotations

import dataclasses
import os.path
import re
from pathlib import Path
from typing import Annotated

import typer

from speechrnn.cli import formats
from speechrnn.cli.app import Json, ModelPath, app, examples
from speechrnn.errors import DataError, TranscriptError


@app.command(
    epilog=examples(
        "speechrnn align model.tflite talk.wav talk.txt --format srt",
        "speechrnn align runs/an4 clip.wav yes --json",
    )
)
def align(
    model: ModelPath,
    recording: Annotated[Path, typer.Argument(metavar="AUDIO", help="An audio file.")],
    transcript: Annotated[
        str,
        typer.Argument(help="What is said in it: a text file, or if there is none, the text."),
    ],
    form: formats.Form = None,
    as_json: Json = False,
) -> None:
    """When each word of a transcript is said in a recording, and how well it fits.

    Each word has its times and its confidence, low where it is not heard. The mismatch is of the
    whole: the nats a symbol by which the transcript is less likely than what the model hears, 0
    where it hears just that. Subtitles keep the transcript's spelling and begin anew at its lines.
    """
    from speechrnn.runtime import open_model
    from speechrnn.runtime.subtitles import as_written

    form = formats.chosen(form, as_json)
    text = _transcript(transcript)
    recogniser = open_model(model, decoder=None)
    try:
        found = recogniser.align(recording, text)
    except TranscriptError as error:
        raise TranscriptError(f"{recording}: {error}", reason=error.reason) from error
    if form == "json":
        print(formats.as_json_text({"path": str(recording), **dataclasses.asdict(found)}))
    elif form == "txt":
        for word in found.words:
            print(f"{word.start_s:8.2f} {word.end_s:8.2f}  {word.confidence:4.0%}  {word.text}")
        print(f"mismatch {found.mismatch:.3f} nats a symbol")
    else:
        words = as_written(text, found.words, recogniser.alphabet.spec.rules)
        breaks = [number for number, word in enumerate(words) if word.begins_line]
        print(formats.subtitles(form, words, found.duration_s, breaks), end="")


def _transcript(given: str) -> str:
    if not os.path.isfile(given):
        if os.path.exists(given) or _looks_like_a_path(given):
            raise DataError(f"there is no transcript at {given}; name a text file or give the text")
        return given
    try:
        return Path(given).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{given} is not UTF-8 text: {error}; save it as UTF-8") from error


def _looks_like_a_path(given: str) -> bool:
    """One word with a folder or a suffix in it."""
    is_one = len(given.split()) == 1
    return is_one and (os.sep in given or re.fullmatch(r".+\.\w{1,5}", given) is not None)
