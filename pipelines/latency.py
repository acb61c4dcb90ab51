"""Error rate against latency: a bidirectional model read in chunks of several sizes.

    python pipelines/latency.py runs/an4
    python pipelines/latency.py runs/an4 --chunks 8:8,16:16,32:16 --output latency.md

A chunk N:R is written when the R frames behind it have been heard. The weights are the run's own,
trained on whole recordings or on chunks; scored on its dev recordings. What is chosen here,
``speechrnn export RUN live.tflite --chunk N --right-context R`` makes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from speechrnn.errors import DataError, SpeechRNNError
from speechrnn.export.chunked import in_chunks, rates
from speechrnn.files import write_atomically
from speechrnn.training import run

CHUNKS = "4:4,8:4,8:8,16:8,16:16,32:8,32:16,32:32,64:32"
COLUMNS = ("chunk", "right context", "latency at most, ms", "WER (95 %)", "CER")


def table(folder: Path, chunks: list[tuple[int, int]]) -> str:
    """Markdown: a row for the model as it was trained, and one for each (chunk, right context)."""
    trained, recordings = run.load(folder), run.dev_recordings(folder)
    if not recordings:
        raise DataError(f"the dev recordings of {folder} are gone; prepare its recipe again")
    models = [("as trained", "", trained)]
    models += [(str(n), str(r), in_chunks(trained, n, r)) for n, r in chunks]
    lines = [COLUMNS, ("---:",) * len(COLUMNS)]
    with Progress(console=Console(stderr=True)) as bar:
        for chunk, right, model in bar.track(models, description="scoring"):
            found, latency = rates(model, recordings), model.spec.latency_ms
            low, high = found.wer_ci95
            lines.append((
                chunk, right, "the recording" if latency is None else f"{latency:.0f}",
                f"{found.wer:.1%} ({low:.1%} to {high:.1%})", f"{found.cer:.1%}",
            ))  # fmt: skip
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _chunks(text: str) -> list[tuple[int, int]]:
    """8:4,16:8 -> [(8, 4), (16, 8)]."""
    try:
        pairs = [tuple(map(int, pair.split(":"))) for pair in text.split(",")]
        return [(chunk, right) for chunk, right in pairs]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; write it as 8:4,16:8") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument(
        "--chunks", type=_chunks, default=CHUNKS, help="frames and frames behind them, as " + CHUNKS
    )
    parser.add_argument("--output", type=Path, help="write the table there too, as Markdown")
    arguments = parser.parse_args()
    found = table(arguments.run, arguments.chunks)
    print(found, end="")
    if arguments.output:
        write_atomically(arguments.output, found.encode())


if __name__ == "__main__":
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
