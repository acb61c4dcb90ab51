"""Audio to text: transcribe."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from speechrnn.cli import formats
from speechrnn.cli.app import SHORT_WAIT, Json, answer, app, complain, console, examples
from speechrnn.cli.decoder import Asked, searching
from speechrnn.errors import DataError


@app.command(
    epilog=examples(
        "speechrnn transcribe hello.wav",
        "speechrnn transcribe calls/a.mp3 calls/b.flac --model model.tflite --json",
        "speechrnn transcribe call.wav --lexicon words.txt --lm lm.arpa --hotword 'ada lovelace'",
        "speechrnn transcribe a.mp3 b.mp3 --model model.tflite --format srt --output subtitles",
        "speechrnn transcribe --stream --microphone --model live.tflite",
        "arecord -f S16_LE -r 16000 -t raw | speechrnn transcribe - --stream --model live.tflite",
    )
)
@searching()
def transcribe(
    recordings: Annotated[
        list[Path] | None, typer.Argument(metavar="AUDIO...", help="Audio files.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Default: the shipped AN4 model.")] = None,
    timestamps: Annotated[bool, typer.Option(help="Print each word with its times.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Give text while the recording goes on.")
    ] = False,
    rate: Annotated[
        int, typer.Option(help="With --stream: Hz of the raw 16-bit mono samples on stdin.")
    ] = 16_000,
    reject: Annotated[
        bool, typer.Option("--reject/--no-reject", help="Leave out what sounds like noise.")
    ] = True,
    microphone: Annotated[
        bool, typer.Option("--microphone", help="With --stream, instead of AUDIO.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="Which microphone; default: the system's.")
    ] = None,
    n_best: Annotated[
        int, typer.Option("--n-best", min=0, help="Alternatives of a beam search to print.")
    ] = 0,
    form: formats.Form = None,
    output: formats.Folder = None,
    as_json: Json = False,
    *,
    search: Asked,
) -> None:
    """Audio to text: WAV, FLAC, Ogg, Opus or MP3, 4 to 768 kHz, mono or not.

    A file that cannot be read is reported, the others are transcribed, and the exit code is 3.
    A file of subtitles holds one recording: of several, name a folder for them with --output.

    With --stream each stretch of speech is a line, printed when a pause has ended it; what is
    heard until then is shown on stderr, with --json as objects whose "final" is false. AUDIO may
    then be -, raw samples from stdin; --microphone listens until Ctrl-C instead. It takes a model
    trained with model.bidirectional=false.
    """
    from speechrnn.runtime import default_model, open_model

    recordings = recordings or []
    _check_sources(recordings, stream, microphone, device)
    form = formats.chosen(form, as_json)
    formats.check_files(form, output, recordings)
    if stream and (form in formats.SUBTITLES or output is not None):
        raise typer.BadParameter("subtitles and files need whole recordings", param_hint="--stream")
    if n_best and (stream or form in formats.SUBTITLES):
        raise typer.BadParameter("neither streams nor subtitles have room", param_hint="--n-best")
    as_json = form == "json"
    recogniser = open_model(model or default_model(), reject, decoder=None)
    search.begin(recogniser)
    if microphone:
        _transcribe_microphone(recogniser, device, timestamps, as_json)
        return
    if stream:
        for path in recordings:
            _transcribe_live(recogniser, path, rate, timestamps, as_json)
        return
    results: list[dict[str, Any]] = []
    failed = 0
    for path in recordings:
        try:
            with _progress(path) as advance:
                heard = recogniser.transcribe(path, advance, n_best)
        except DataError as error:
            failed += 1
            complain(str(error))
            results.append({"path": str(path), "text": None, "error": str(error)})
            continue
        results.append(_as_data(path, heard))
        _tell_rejected(path, heard.rejected)
        if not as_json and not heard.text and not heard.rejected:
            console.print(f"{path}: nothing was heard", markup=False, highlight=False)
        if output is not None or not as_json:
            named = len(recordings) > 1 and output is None
            formats.give(_as_text(form, results[-1], heard, named, timestamps), output, path, form)
    if as_json and output is None:
        answer(results, "", as_json)
    if failed:
        raise DataError(f"{failed} of {len(recordings)} recordings could not be transcribed")


def _as_data(path: Path, heard: Any) -> dict[str, Any]:
    return {
        "path": str(path),
        "text": heard.text,
        "confidence": heard.confidence,
        "duration_s": heard.duration_s,
        "words": [dataclasses.asdict(word) for word in heard.words],
        "rejected": heard.rejected,
        "alternatives": [dataclasses.asdict(each) for each in heard.alternatives],
    }


def _as_text(form: str, data: dict[str, Any], heard: Any, named: bool, timestamps: bool) -> str:
    """One recording's transcript in the format, with its path before the text if ``named``."""
    if form == "json":
        return formats.as_json_text(data)
    if form in formats.SUBTITLES:
        return formats.subtitles(form, heard.words, heard.duration_s)
    line = f"{data['path']}\t{heard.text}" if named else heard.text
    others = [f"  {each.score:9.2f}  {each.text}" for each in heard.alternatives]
    return "\n".join([line, *(_times(heard.words) if timestamps else []), *others])


@contextlib.contextmanager
def _progress(path: Path) -> Iterator[Callable[[float], None]]:
    """What to call with the seconds of a recording that are done; a bar where it takes long."""
    from rich.progress import Progress

    from speechrnn import audio

    begun = time.monotonic()
    with contextlib.ExitStack() as shown:
        bar: Progress | None = None

        def advance(seconds: float) -> None:
            nonlocal bar
            if bar is None and time.monotonic() - begun < SHORT_WAIT:
                return
            if bar is None:
                bar = shown.enter_context(Progress(console=console, transient=True))
                bar.add_task(escape(path.name), total=audio.promised_seconds(path))
            bar.update(bar.task_ids[0], completed=seconds)

        yield advance


def _check_sources(
    recordings: list[Path], stream: bool, microphone: bool, device: str | None
) -> None:
    """Raise BadParameter unless it is clear what is to be heard."""
    if microphone and recordings:
        raise typer.BadParameter("give AUDIO or --microphone, not both", param_hint="AUDIO")
    if not microphone and not recordings:
        raise typer.BadParameter("give audio files, or --stream --microphone", param_hint="AUDIO")
    if microphone and not stream:
        raise typer.BadParameter("--microphone needs --stream", param_hint="--microphone")
    if device is not None and not microphone:
        raise typer.BadParameter("--device needs --stream --microphone", param_hint="--device")
    if Path("-") in recordings and not stream:
        raise typer.BadParameter("- needs --stream", param_hint="AUDIO")


def _transcribe_live(
    recogniser: Any, path: Path, rate: int, timestamps: bool, as_json: bool
) -> None:
    from speechrnn import audio
    from speechrnn.runtime import live

    sample_rate = recogniser.spec.features.sample_rate
    stream = recogniser.stream()
    if path == Path("-"):
        pieces = live.raw_pcm(sys.stdin.buffer, rate, sample_rate)
    else:
        pieces = live.cut(audio.blocks(path, sample_rate), sample_rate)
    _print_live(live.listen(stream, pieces), str(path), timestamps, as_json)
    _tell_rejected(path, stream.rejected)


def _transcribe_microphone(
    recogniser: Any, device: str | None, timestamps: bool, as_json: bool
) -> None:
    from speechrnn.corpora.record import SoundDevice
    from speechrnn.runtime import live

    def report_loss(seconds: float) -> None:
        console.print(
            f"warning: sound was lost after {seconds:.1f} s; this machine did not keep up",
            style="red",
            highlight=False,
        )

    stream = recogniser.stream()
    microphone = live.LiveMicrophone(
        SoundDevice(device), recogniser.spec.features.sample_rate, report_loss
    )
    with live.first_interrupt(microphone.stop):
        _print_live(live.listen(stream, microphone), "microphone", timestamps, as_json)
    _tell_rejected("microphone", stream.rejected)


def _print_live(results: Iterable[Any], path: str, timestamps: bool, as_json: bool) -> None:
    with console.status("listening") as status:
        for heard in results:
            if as_json:
                found = {
                    "path": path,
                    "final": heard.is_final,
                    "text": heard.text,
                    "confidence": heard.confidence,
                    "words": [dataclasses.asdict(word) for word in heard.words],
                }
                answer(found, "", as_json)
            elif not heard.is_final:
                status.update(Text(heard.text or "listening"))
                continue
            else:
                print(heard.text)
                if timestamps:
                    _print_times(heard.words)
            sys.stdout.flush()  # for whoever reads along


def _tell_rejected(path: Path | str, stretches: int) -> None:
    if stretches:
        noun = "stretch was" if stretches == 1 else "stretches were"
        console.print(
            f"{path}: {stretches} {noun} taken for noise; --no-reject writes what was heard",
            markup=False,
            highlight=False,
        )


def _print_times(words: Iterable[Any]) -> None:
    for line in _times(words):
        print(line)


def _times(words: Iterable[Any]) -> list[str]:
    return [f"  {word.start_s:7.2f} {word.end_s:7.2f}  {word.text}" for word in words]
