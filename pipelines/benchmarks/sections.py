"""The sections of docs/benchmarks.md, each from what one part found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Found = dict[str, Any]
ACTIONS = (("train", "training step"), ("infer", "inference pass"))

TRAINING_STEP = """Forward, CTC, backward, clipping by the global norm, Adam; and forward alone.
"x Keras" and "x PyTorch" are how many times as fast a row is as stock Keras, and as the faster of
PyTorch's rows of its precision. Keras and speechrnn start the backward direction at an utterance's
last frame, as PyTorch does on packed sequences; dense, it starts in the padding."""
TRAINING_OPTIONS = """What a recipe may ask of a training step: in parts, compiled by XLA, in
bfloat16, exact.
"""
INFERENCE = """The same network with the same weights in each runtime: {mels} log-mels, two
convolutions, {layers} bidirectional LSTM layers of {units} units; 10 s of audio, features given,
one thread. Each in float32 computes what the Keras model does, to 1e-4. int8 are weights.
"""
MEMORY = """The most that a process has held (`VmHWM`), Python and libraries included: training
steps of the first table above, and 10 s of audio through the network of the last one.
"""
FEATURES = """{mels} log-mels of {audio_seconds:g} s of audio, the same numbers by each, one thread.
"""
INPUT_PIPELINE = """Seconds of audio for a second of the clock and of one core's time: reading
shards, augmentation and features of AN4's recipe, alone; and the training that waits for them.
"""
DECODING = """Posteriors of {utterances} utterances of AN4 dev, lexicon and 3-gram, beam {beam}, one
thread. flashlight-text is called directly with the same options, and gives texts only; speechrnn,
which calls it too, also gives frames and confidences.
"""
RECOGNISERS = """AN4 dev (this project's own split), waveform to text, one thread. The 3-gram is of
the training transcripts; nothing is tuned. pocketsphinx has its own model of American English. The
shipped model learned from AN4's other speakers, and its epoch was chosen on these: it was made for
this, and hears nothing else.
"""


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is of names, the others of numbers."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *rows))


def _left_out(found: Found) -> Iterator[str]:
    """Who is missing, and why: a line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in found.get("left_out", {}).items():
        by_reason.setdefault(reason, []).append(f"`{name}`")
    for reason, names in by_reason.items():
        yield f"\nLeft out: {', '.join(names)}: {reason}."


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _training_step(found: Found) -> Iterator[str]:
    yield TRAINING_STEP
    for record in found["results"]:
        rows = []
        for row in record["rows"]:
            cells = [row["title"], row["precision"]]
            for action, _ in ACTIONS:
                ratios_of = row[action]["ratios"]["best"]
                cells += [_ms(row[action]["best"]), _times(ratios_of.get("stock"))]
                cells.append(_times(ratios_of.get("pytorch")))
            rows.append(cells)
        yield (
            f"\n{record['layers']} bidirectional layers of {record['cell'].upper()}"
            f"({record['units']}), {record['batch']} utterances of up to {record['frames']} "
            f"frames, {record['audio_seconds']:.0f} s of audio:\n"
        )
        columns = ["", "products in"]
        for _, title in ACTIONS:
            columns += [f"{title}, ms", "x Keras", "x PyTorch"]
        yield markdown(columns, rows)
        yield from _left_out(record)


def _training_options(found: Found) -> Iterator[str]:
    rows: Found = found["rows"]
    one = next((row["step"] for row in rows.values() if "failed" not in row), 1.0)
    yield TRAINING_OPTIONS
    cells = [
        [name, "failed", "", "", ""]
        if "failed" in row
        else [name, _ms(row["step"]), f"{row['step'] / one:.2f}", _mb(row["memory"]),
              f"{row['first']:.1f}"]
        for name, row in rows.items()
    ]  # fmt: skip
    yield markdown(["", "ms", "of the first row", "memory, MB", "first step, s"], cells)


def _inference(found: Found) -> Iterator[str]:
    yield INFERENCE.format(**found["network"])
    fastest = _fastest(found["rows"])
    rows = [
        [row["runtime"], row["precision"], _ms(row["best"]), _ms(row["median"]),
         f"{row['best'] / fastest:.2f}", f"{row['difference']:.0e}"]
        for row in found["rows"]
    ]  # fmt: skip
    columns = ["", "weights", "best, ms", "median, ms", "by speechrnn's float32", "difference"]
    yield markdown(columns, rows)
    yield from _left_out(found)


def _fastest(rows: Sequence[Found]) -> float:
    """Seconds of our float32 file, which the others are divided by; else of the first row."""
    ours = [row["best"] for row in rows if row["form"] == "litert-float32"]
    return [*ours, rows[0]["best"]][0]


def memory(results: Found) -> Iterator[str]:
    yield MEMORY
    rows = []
    step, inference = (results.get(part, {}) for part in ("training_step", "inference"))
    for record in step.get("found", {}).get("results", [])[:1]:
        for row in record["rows"]:
            size = _mb(row["peak_memory_bytes"])
            rows.append(["training", row["title"], row["precision"], size])
    for row in inference.get("found", {}).get("rows", []):
        size = _mb(row["peak_memory_bytes"])
        rows.append(["transcription", row["runtime"], row["precision"], size])
    yield markdown(["", "", "precision", "MB"], rows)


def _features(found: Found) -> Iterator[str]:
    yield FEATURES.format(**found)
    ours = found["rows"][0]["seconds"]
    rows = [
        [row["name"], _ms(row["seconds"]), f"{row['seconds'] / ours:.2f}",
         f"{row['difference']:.0e}"]
        for row in found["rows"]
    ]  # fmt: skip
    yield markdown(["", "ms", "by the first row", "difference"], rows)
    yield from _left_out(found)


def _input_pipeline(found: Found) -> Iterator[str]:
    wall, core = found["wall"], found["processor"]
    yield INPUT_PIPELINE
    names = [name for name in ("pipeline", "training") if name in wall]
    yield markdown(
        ["", "by the clock", "for a core"],
        [[name, f"{wall[name]:.0f}", f"{core[name]:.0f}"] for name in names],
    )
    yield "\nChanges to 10 s of a recording, one thread:\n"
    rows = [
        [name, f"{1e4 / rate:.2f}"]
        for name, rate in core.items()
        if name not in ("pipeline", "training")
    ]
    yield markdown(["", "ms"], rows)


def _decoding(found: Found) -> Iterator[str]:
    yield DECODING.format(**found)
    titles = {
        "flashlight": "flashlight-text directly",
        "ours": "`BeamDecoder.decode`",
        "listen and decode": "recording to posteriors to text",
        "transcribe": "`transcribe`: with pauses and word times",
        "evaluate": "`evaluate`: with the score",
    }
    rates = found["utterances_a_second"]
    rows = [[titles[name], f"{rate:.0f}"] for name, rate in rates.items()]
    yield markdown(["", "utterances a second"], rows)
    differ = found["texts_that_differ"]
    yield f"\nTexts that differ from flashlight-text's: {', '.join(differ) or 'none'}."


def _recognisers(found: Found) -> Iterator[str]:
    yield RECOGNISERS
    rows = [
        [row["title"], _wer(row), f"{row['real_time_factor']:.4f}", _mb(row["peak_memory_bytes"])]
        for row in found["rows"]
    ]
    yield markdown(["", "WER (95 %)", "real-time factor", "memory, MB"], rows)
    yield from _left_out(found)


def _wer(row: Found) -> str:
    low, high = row["wer_ci95"]
    return f"{100 * row['wer']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


# By the name of a part: its title, and what is said of it.
SECTIONS: dict[str, tuple[str, Callable[[Found], Iterator[str]]]] = {
    "training_step": ("Training step", _training_step),
    "training_options": ("A training step's options", _training_options),
    "inference": ("Inference", _inference),
    "features": ("Features", _features),
    "input_pipeline": ("Input pipeline", _input_pipeline),
    "decoding": ("Decoding", _decoding),
    "recognisers": ("A whole recogniser", _recognisers),
}
