"""What a transcript with times is written as, on stdout or as a file for each recording."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

FORMATS = ("txt", "json", "srt", "vtt")
SUBTITLES = ("srt", "vtt")

Form = Annotated[
    str | None,
    typer.Option("--format", metavar="|".join(FORMATS), help="What to print; txt by default."),
]
Folder = Annotated[
    Path | None,
    typer.Option("--output", metavar="FOLDER", help="Write a file there for each recording."),
]


def chosen(form: str | None, as_json: bool) -> str:
    """The format that both options together ask for.

    Raises:
        BadParameter: an unknown one, or two.
    """
    if form is not None and form not in FORMATS:
        raise typer.BadParameter(f"{form!r}; choose {', '.join(FORMATS)}", param_hint="--format")
    if as_json and form not in (None, "json"):
        raise typer.BadParameter(f"--json and --format {form}; choose one", param_hint="--format")
    return "json" if as_json else form or "txt"


def check_files(form: str, folder: Path | None, recordings: Sequence[Path]) -> None:
    """Raise BadParameter where several recordings would become one file."""
    if folder is None:
        if form in SUBTITLES and len(recordings) > 1:
            raise typer.BadParameter(
                f"{len(recordings)} recordings, and one file of {form} holds one; name a folder "
                "with --output",
                param_hint="--format",
            )
        return
    names = [file_in(folder, path, form) for path in recordings]
    same = sorted({str(name) for name in names if names.count(name) > 1})
    if same:
        raise typer.BadParameter(
            f"several recordings would be written to {', '.join(same)}; do them one at a time",
            param_hint="--output",
        )


def file_in(folder: Path, recording: Path, form: str) -> Path:
    """calls/a.mp3 -> FOLDER/a.srt"""
    return folder / f"{recording.stem}.{form}"


def subtitles(
    form: str, words: Sequence[Any], duration_s: float, breaks: Sequence[int] = ()
) -> str:
    """Words with times as the text of one subtitle file."""
    from speechrnn.runtime import subtitles

    return getattr(subtitles, form)(subtitles.cues(words, duration_s, breaks))


def give(text: str, folder: Path | None, recording: Path, form: str) -> None:
    """Print it, or write it and print where."""
    if folder is None:
        print(text, end="" if text.endswith("\n") else "\n")
        return
    from speechrnn.files import write_atomically

    folder.mkdir(parents=True, exist_ok=True)
    path = file_in(folder, recording, form)
    write_atomically(path, (text if text.endswith("\n") else f"{text}\n").encode())
    print(path)


def as_json_text(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, default=str)
