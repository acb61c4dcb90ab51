"""The speechrnn command: each subcommand parses, makes one library call, and prints.

stdout is the answer, text or with --json one JSON object; stderr is for people. Exit codes:
0 ok, 1 the machine refused (no space, no permission, no memory), 2 usage, 3 bad data, 4 bad
model, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from speechrnn.errors import DataError, MissingExtra, SpeechRNNError

if TYPE_CHECKING:
    from speechrnn.recipe import Recipe

app = typer.Typer(
    name="speechrnn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a recurrent CTC speech recogniser on your own recordings; ship it as one file.",
    epilog="MODEL is a run directory, a SavedModel directory or a .tflite file, everywhere.\n\n"
    "A first recogniser in minutes: make quickstart. Your own recordings: prepare and train with "
    "data.manifest naming a CSV of path and text, then evaluate, export and transcribe.\n\n"
    "Exit codes: 0 ok, 1 the machine refused (space, permission, memory), 2 usage, 3 bad data, "
    "4 bad model, 130 interrupted.",
)
console = Console(stderr=True, soft_wrap=True)

REFUSED, INTERRUPTED = 1, 130  # exit codes beside those of ``errors``
SHORT_WAIT = 2.0  # seconds without a bar

RecipeFile = Annotated[Path, typer.Argument(help="A YAML recipe, such as configs/an4.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[key=value]...", help="Values to change, as training.epochs=3."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Phrases = Annotated[
    Path, typer.Argument(help="One phrase a line; a tab and train, dev or test pins its split.")
]


def main() -> None:
    """Run the command; errors that have a cause outside become a message and an exit code."""
    try:
        app()
    except SpeechRNNError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except refusals() as error:
        complain(
            f"the machine refused: {str(error) or type(error).__name__}; check the path, its "
            "permissions, and the free space and memory"
        )
        sys.exit(REFUSED)


def refusals() -> tuple[type[Exception], ...]:
    """What missing space, memory and permission raise; TensorFlow has classes of its own."""
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)
    if errors is None:
        return (OSError, MemoryError)
    return (OSError, MemoryError, errors.ResourceExhaustedError, errors.PermissionDeniedError)


def complain(message: str) -> None:
    console.print(f"error: {message}", style="red", markup=False, highlight=False)


def answer(data: dict[str, Any] | list[Any], text: str, as_json: bool) -> None:
    print(json.dumps(data, ensure_ascii=False, default=str) if as_json else text)


def load_recipe(path: Path, overrides: list[str] | None) -> Recipe:
    from speechrnn import recipe

    return recipe.load(path, overrides or [])


def examples(*lines: str) -> str:
    """The end of a command's help; typer keeps paragraphs apart, and nothing else."""
    return "\n\n".join(["Examples:", *lines])


@app.command(
    epilog=examples(
        "speechrnn prepare configs/an4.yaml",
        "speechrnn prepare configs/an4.yaml data.manifest=mine.csv output=runs/mine",
    )
)
def prepare(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Check recordings and transcripts and write them as shards with an index.

    Rejected utterances are listed with their reason in report.tsv and end the command with exit
    code 3; the rest is ready to train on. Running it again does only what is missing.
    """
    loaded = load_recipe(recipe, overrides)
    prepare_module = needs_training_extra("preparing a corpus", "speechrnn.data.prepare")
    index = prepare_module.prepare(loaded)
    for split in sorted({row.split for row in index.rows}):
        hours = index.seconds(split) / 3600
        print(f"{split}: {len(index.split(split))} utterances, {hours:.2f} h")
    rejections = prepare_module.rejections(loaded.prepared)
    for rejected in rejections[:20]:
        console.print(
            f"rejected {rejected.utterance_id} ({rejected.reason}): {rejected.message}",
            markup=False,
            highlight=False,
        )
    if rejections:
        raise DataError(
            f"{len(rejections)} utterances were rejected, listed in {loaded.prepared}/report.tsv; "
            "the others are ready"
        )


@app.command(
    epilog=examples(
        "speechrnn train configs/an4.yaml",
        "speechrnn train configs/an4.yaml data.manifest=mine.csv output=runs/mine",
    )
)
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Train a recipe; the result is its output, a run directory.

    Prepares the corpus where that is not done, and goes on from the last checkpoint where
    there is one.
    """
    loaded = load_recipe(recipe, overrides)
    needs_training_extra("training", "speechrnn.training.threads").configure(
        loaded.training.threads
    )
    card = needs_training_extra("training", "speechrnn.training").train(loaded, quiet=quiet)
    print(f"{loaded.output}: dev WER {card['dev']['wer']:.1%} after epoch {card['epoch']}")


@app.command(
    epilog=examples(
        "speechrnn evaluate runs/an4 data/an4/manifest.tsv --split dev",
        "speechrnn evaluate model.tflite mine.csv --json",
    )
)
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run, a SavedModel or a .tflite file.")],
    manifest: Annotated[Path, typer.Argument(help="Recordings and transcripts, TSV or CSV.")],
    split: Annotated[str | None, typer.Option(help="Only this split of the manifest.")] = None,
    as_json: Json = False,
) -> None:
    """Word and character error rates of a model, with a 95 % interval.

    A manifest that names no splits is divided as the model's own was, so that --split dev means
    utterances that it was not trained on.
    """
    from speechrnn.corpora import manifest as manifests
    from speechrnn.runtime import open_model

    evaluation = needs_training_extra("evaluating", "speechrnn.evaluation.evaluate")
    recogniser = open_model(model)
    utterances = manifests.read(manifest, recogniser.card.get("dev_fraction", 0.1))
    if split is not None:
        known = sorted({u.split for u in utterances})
        utterances = [u for u in utterances if u.split == split]
        if not utterances:
            raise DataError(f"{manifest} has no split {split!r}; it has {', '.join(known)}")
    result = evaluation.evaluate(recogniser, utterances)
    answer(result.to_dict(), result.table(), as_json)
    if result.failures:
        raise DataError(f"{len(result.failures)} recordings could not be transcribed")


@app.command(
    epilog=examples(
        "speechrnn export runs/an4 an4.tflite",
        "speechrnn export runs/an4 an4-float32.tflite --precision float32",
        "speechrnn export runs/an4 live.tflite --chunk 16 --right-context 16",
        "speechrnn export runs/an4 an4-fused.tflite --lowering fused",
        "speechrnn export runs/an4 served --format savedmodel",
    )
)
def export(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[
        Path, typer.Argument(help="The .tflite file to make, or a folder for a SavedModel.")
    ],
    form: Annotated[str, typer.Option("--format", help="tflite or savedmodel.")] = "tflite",
    precision: Annotated[
        str, typer.Option(help="Of a .tflite's weights: float32, float16 or int8.")
    ] = "int8",
    chunk: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Let a bidirectional model stream, so many output frames at a time. (A frame "
            "lasts model.time_stride * features.hop_ms: 30 ms in configs/an4.yaml.)",
        ),
    ] = None,
    right_context: Annotated[
        int, typer.Option(min=0, help="With --chunk: output frames that it reads behind a chunk.")
    ] = 0,
    lowering: Annotated[
        str,
        typer.Option(
            help="Of a .tflite's recurrence: nested loops, or the fused operation "
            "UNIDIRECTIONAL_SEQUENCE_LSTM, for tools that need it: slower, no streaming, lstm only."
        ),
    ] = "nested",
) -> None:
    """Write a trained model as one file for a device, or as a SavedModel for a server.

    Nothing is written that does not compute what the trained model computes, on generated sounds
    and on the run's own dev recordings; the report is saved beside it. A SavedModel goes into a
    numbered folder, OUT/1 at first, as TensorFlow Serving wants it.
    """
    if form not in ("tflite", "savedmodel"):
        raise typer.BadParameter(f"{form!r}; choose tflite or savedmodel", param_hint="--format")
    if precision not in ("float32", "float16", "int8"):
        raise typer.BadParameter(
            f"{precision!r}; choose float32, float16 or int8", param_hint="--precision"
        )
    if lowering not in ("nested", "fused"):
        raise typer.BadParameter(f"{lowering!r}; choose nested or fused", param_hint="--lowering")
    if right_context and chunk is None:
        raise typer.BadParameter("it needs --chunk", param_hint="--right-context")
    runs = needs_training_extra("exporting", "speechrnn.training.run")
    trained, recordings = runs.load(run), runs.dev_recordings(run)
    with console.status("converting, then comparing with the trained model"):
        if chunk is not None:
            from speechrnn.export.chunked import in_chunks

            trained = in_chunks(trained, chunk, right_context, recordings)
        model = trained.model, trained.spec, trained.card
        if form == "savedmodel":
            from speechrnn.export.savedmodel import export_savedmodel

            report = export_savedmodel(*model, out, recordings=recordings)
        else:
            from speechrnn.export.tflite import export_tflite

            report = export_tflite(*model, out, precision, recordings=recordings, lowering=lowering)
    console.print(report.summary(), markup=False, highlight=False)
    print(report.path)


@app.command(
    epilog=examples(
        "speechrnn transcribe hello.wav",
        "speechrnn transcribe calls/a.mp3 calls/b.flac --model model.tflite --json",
        "speechrnn transcribe --stream --microphone --model live.tflite",
        "arecord -f S16_LE -r 16000 -t raw | speechrnn transcribe - --stream --model live.tflite",
    )
)
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
    as_json: Json = False,
) -> None:
    """Audio to text: WAV, FLAC, Ogg, Opus or MP3, 4 to 768 kHz, mono or not.

    A file that cannot be read is reported, the others are transcribed, and the exit code is 3.

    With --stream each stretch of speech is a line, printed when a pause has ended it; what is
    heard until then is shown on stderr, with --json as objects whose "final" is false. AUDIO may
    then be -, raw samples from stdin; --microphone listens until Ctrl-C instead. It takes a model
    trained with model.bidirectional=false.
    """
    from speechrnn.runtime import default_model, open_model

    recordings = recordings or []
    _check_sources(recordings, stream, microphone, device)
    recogniser = open_model(model or default_model(), reject)
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
                heard = recogniser.transcribe(path, advance)
        except DataError as error:
            failed += 1
            complain(str(error))
            results.append({"path": str(path), "text": None, "error": str(error)})
            continue
        results.append(
            {
                "path": str(path),
                "text": heard.text,
                "confidence": heard.confidence,
                "duration_s": heard.duration_s,
                "words": [dataclasses.asdict(word) for word in heard.words],
                "rejected": heard.rejected,
            }
        )
        _tell_rejected(path, heard.rejected)
        if not as_json:
            print(f"{path}\t{heard.text}" if len(recordings) > 1 else heard.text)
            if not heard.text and not heard.rejected:
                console.print(f"{path}: nothing was heard", markup=False, highlight=False)
            if timestamps:
                _print_times(heard.words)
    if as_json:
        answer(results, "", as_json)
    if failed:
        raise DataError(f"{failed} of {len(recordings)} recordings could not be transcribed")


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
    for word in words:
        print(f"  {word.start_s:7.2f} {word.end_s:7.2f}  {word.text}")


@app.command(
    epilog=examples(
        "speechrnn benchmark model.tflite",
        "speechrnn benchmark runs/an4 --seconds 30 --json",
        "speechrnn benchmark float32.tflite --compare int8.tflite",
    )
)
def benchmark(
    model: Annotated[Path, typer.Argument(help="A run, a SavedModel or a .tflite file.")],
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Length of the test clip.")] = 10,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions; the median counts.")] = 5,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="Another model, measured in turn with this one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Size, load time, latency, real-time factor, peak memory and operations of a model.

    In fresh processes and on one thread, TensorFlow too. With --compare both models are measured
    in turn, round by round, and ratios are OTHER / MODEL.
    """
    from rich.progress import Progress

    from speechrnn.runtime import benchmark as costs

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        result: costs.Cost | costs.Comparison
        if compare is None:
            result = costs.measure(model, seconds, runs, show)
        else:
            result = costs.compare(model, compare, seconds, runs, show)
    answer(result.to_dict(), result.table(), as_json)


@app.command(epilog=examples("speechrnn info model.tflite", "speechrnn info mine.csv"))
def info(
    path: Annotated[Path, typer.Argument(help="A model, a run directory or a manifest.")],
    as_json: Json = False,
) -> None:
    """What a model, a run or a manifest is and holds.

    A manifest is told by its name: .tsv, .csv, .json or .jsonl.
    """
    from speechrnn.runtime.describe import describe

    result = describe(path)
    text = "\n".join(f"{key:22} {value}" for key, value in result.items())
    answer(result, text, as_json)


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


def needs_training_extra(feature: str, module: str) -> Any:
    """Import a module of the training side; names the extra where that is not installed."""
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "speechrnn":
            raise
        raise MissingExtra(feature, "train") from error
