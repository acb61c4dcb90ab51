"""Recordings to a model: prepare, train, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from speechrnn.cli.app import (
    Overrides,
    RecipeFile,
    app,
    console,
    examples,
    load_any_recipe,
    load_recipe,
    needs_training_extra,
    orderly_end,
)
from speechrnn.cli.decoder import DecoderFile
from speechrnn.decoding import carried
from speechrnn.errors import DataError

if TYPE_CHECKING:
    from speechrnn.decoding.settings import DecoderSettings
    from speechrnn.specs import RecogniserSpec

_BEAM_OPTIONS = "speechrnn.beam_options"  # in a context: what stands behind --


class _WithBeamOptions(TyperCommand):
    """A command whose words behind ``--`` are not its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own, there, rest = _at_dashes(args)
        ctx.meta[_BEAM_OPTIONS] = rest if there else []
        return super().parse_args(ctx, own)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- BEAM_OPTION...]"]


def _at_dashes(args: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in args:
        return args, False, []
    at = args.index("--")
    return args[:at], True, args[at + 1 :]


@app.command(
    cls=_WithBeamOptions,
    epilog=examples(
        "speechrnn prepare configs/an4.yaml",
        "speechrnn prepare configs/an4.yaml data.manifest=mine.csv output=runs/mine",
        "speechrnn prepare configs/an4.yaml data.manifest=mine.csv --runner FnApiRunner",
        "speechrnn prepare configs/an4.yaml data.manifest=/shared/mine.csv "
        "data.prepared=/shared/prepared --runner FlinkRunner -- --flink_master=host:8081",
    ),
)
def prepare(
    ctx: typer.Context,
    recipe: RecipeFile,
    overrides: Overrides = None,
    runner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Prepare on Apache Beam: FnApiRunner on this machine, FlinkRunner, SparkRunner or "
            "DataflowRunner on a cluster; what stands behind -- goes to Beam as it is. Wants the "
            "extra \\[beam]. Without it, processes of this machine do it.",
        ),
    ] = None,
) -> None:
    """Check recordings and transcripts and write them as shards with an index.

    Rejected utterances are listed with their reason in report.tsv and end the command with exit
    code 3; the rest is ready to train on. Running it again does only what is missing, changed or
    damaged: it looks at every recording and reads every shard.
    """
    options = ctx.meta[_BEAM_OPTIONS]
    if options and runner is None:
        raise typer.BadParameter(f"{options[0]!r} is for Beam; name a runner", param_hint="--")
    loaded = load_recipe(recipe, overrides)
    prepare_module = needs_training_extra("preparing a corpus", "speechrnn.data.prepare")
    with orderly_end():
        index = prepare_module.prepare(loaded, runner=runner, options=options)
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
        "speechrnn train configs/char_lm.yaml data.manifest=mine.csv output=runs/mine_lm",
    )
)
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Train a recipe; the result is its output, a run directory.

    The recipe is that of a recogniser, or of a language model (configs/char_lm.yaml). Prepares the
    corpus where that is not done, and goes on from the last checkpoint where
    there is one.
    """
    loaded = load_any_recipe(recipe, overrides)
    needs_training_extra("training", "speechrnn.training.threads").configure(
        loaded.training.threads
    )
    with orderly_end():  # until training itself listens, and after that
        card = needs_training_extra("training", "speechrnn.training").train(loaded, quiet=quiet)
    found = card["dev"]
    result = (
        f"WER {found['wer']:.1%}"
        if "wer" in found
        else f"{found['bits_per_character']:.3f} bits a character"
    )
    print(f"{loaded.output}: dev {result} after epoch {card['epoch']}")


@app.command(
    epilog=examples(
        "speechrnn export runs/an4 an4.tflite",
        "speechrnn export runs/an4 an4-float32.tflite --precision float32",
        "speechrnn export runs/an4 live.tflite --chunk 16 --right-context 16",
        "speechrnn export runs/an4 an4-fused.tflite --lowering fused",
        "speechrnn export runs/an4 an4.tflite --decoder decoder.json",
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
    decoder: DecoderFile = None,
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

    With --decoder the model carries the settings of a beam search with its lexicon and language
    model, and transcribe and evaluate use them.
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
        card = trained.card
        if decoder is not None:
            card = {**card, carried.KEY: carried.pack(_usable(decoder, trained.spec))}
        model = trained.model, trained.spec, card
        if form == "savedmodel":
            from speechrnn.export.savedmodel import export_savedmodel

            report = export_savedmodel(*model, out, recordings=recordings)
        else:
            from speechrnn.export.tflite import export_tflite

            report = export_tflite(*model, out, precision, recordings=recordings, lowering=lowering)
    console.print(report.summary(), markup=False, highlight=False)
    print(report.path)


def _usable(decoder: Path, spec: RecogniserSpec) -> DecoderSettings:
    """The settings of a file, once a search with this model's alphabet could be set up."""
    from speechrnn.decoding import settings
    from speechrnn.decoding.beam import BeamDecoder
    from speechrnn.text import Alphabet

    found = settings.load(decoder)
    BeamDecoder(Alphabet(spec.alphabet), found)
    return found
