"""The shipped model beside pocketsphinx on AN4 dev: error rates, speed and memory, in one run.

    python pipelines/benchmarks/beside_pocketsphinx.py                 two minutes
    python pipelines/benchmarks/beside_pocketsphinx.py --data data/an4/manifest.tsv --rounds 5

pocketsphinx is optional (pip install pocketsphinx); without it its row is left out.

Each is a process of its own with one thread and the recordings in memory; they take turns in every
round, and the best counts. The 3-gram is estimated from the training transcripts. Nothing is tuned
for either: pocketsphinx has its defaults, its own American English model (no AN4 in particular)
and its own dictionary; our beam search has the defaults of ``speechrnn evaluate --lm``. The shipped
model was trained on AN4's other speakers, and its epoch chosen on these: that is what it is for,
and why its error rate is no measure of a general recogniser's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recognisers import RECOGNISERS, Spoken
from report import left_out, table
from rich.console import Console
from rich.progress import Progress
from workers import Bench

from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance
from speechrnn.decoding import arpa, kneser_ney
from speechrnn.errors import SpeechRNNError
from speechrnn.evaluation.error_rates import score
from speechrnn.runtime import container, default_model
from speechrnn.text import normalise

PIPELINES = Path(__file__).parents[1]
ORDER = 3


def write_lm(utterances: Sequence[Utterance], path: Path) -> None:
    """A 3-gram of the training transcripts, as the shipped model writes them."""
    rules = container.read(default_model()).spec.alphabet.rules
    sentences = [normalise(u.text, rules).split() for u in utterances if u.split == "train"]
    arpa.write_arpa(kneser_ney.estimate(sentences, ORDER), path)


def compare(spoken: Spoken, rounds: int) -> dict[str, Any]:
    """The recognisers' error rates and best times on the same recordings."""
    listed = manifest.read(spoken.manifest)
    write_lm(listed, Path(spoken.lm))
    dev = [u for u in listed if u.split == spoken.split][: spoken.utterances or None]
    with Progress(console=Console(stderr=True)) as progress, Bench(progress) as bench:
        for name in RECOGNISERS:
            bench.start(name, name, spoken)
        times = bench.run(rounds, 0.0, "in turns")
        memory = {name: worker.peak_memory() for name, worker in bench.workers.items()}
    seconds = sum(_seconds(u) for u in dev)
    rows = []
    for name, by_action in times.items():
        texts = json.loads((Path(spoken.folder) / f"{name}.json").read_text(encoding="utf-8"))
        rates = score(
            {u.utterance_id: u.text for u in dev}, texts, {u.utterance_id: u.speaker for u in dev}
        )
        best = min(by_action["transcribe"])
        rows.append(
            {
                "recogniser": name,
                "title": RECOGNISERS[name],
                **rates.summary(),
                "seconds": best,
                "real_time_factor": best / seconds,
                "peak_memory_bytes": memory[name],
            }
        )
    return {"audio_seconds": seconds, "rows": rows, "left_out": bench.left_out}


def _seconds(utterance: Utterance) -> float:
    import soundfile

    return soundfile.info(utterance.path).duration


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="AN4: an unpacked archive's folder, or a manifest"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--utterances", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args(given)
    sys.path.insert(0, str(PIPELINES))
    from an4 import find_manifest

    with tempfile.TemporaryDirectory() as folder:
        spoken = Spoken(
            str(find_manifest(options.data)),
            folder,
            str(Path(folder) / "words.arpa"),
            utterances=options.utterances,
        )
        found = compare(spoken, options.rounds)
    rows = [
        [
            row["title"],
            f"{row['wer']:.1%} ({row['wer_ci95'][0]:.1%} to {row['wer_ci95'][1]:.1%})",
            f"{row['real_time_factor']:.4f}",
            f"{row['peak_memory_bytes'] / 1e6:.0f}",
        ]
        for row in found["rows"]
    ]
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=True)
    columns = ["", "WER (95 %)", "real-time factor", "memory MB"]
    console.print(table(f"AN4 dev, {found['audio_seconds']:.0f} s, one thread", columns, rows))
    left_out(console, found["left_out"])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


if __name__ == "__main__":
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
