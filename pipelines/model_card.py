"""What a model of AN4 is and can: the tables of its card.

    python pipelines/model_card.py --float32 runs/an4/an4-float32.tflite        the shipped model
    python pipelines/model_card.py --model mine.tflite --data mine.tsv --card CARD.md

Scores the int8 file on dev by every condition that the card tells of, measures its speed and
memory in a process of its own, counts what it writes where nobody speaks, and puts the tables
between the marks of the card. AN4's speakers tell their sex by the first letter of their names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import an4
import decoding
import numpy as np
from telephone import Change, copies, over_the_telephone
from trainings import page

from speechrnn import corpora
from speechrnn.corpora import noise, recordings
from speechrnn.corpora.utterance import Utterance
from speechrnn.data.augment.noise import active_power, mix
from speechrnn.errors import SpeechRNNError
from speechrnn.evaluation.breakdown import Row, by_duration, by_value
from speechrnn.evaluation.evaluate import Evaluation, evaluate
from speechrnn.evaluation.rejection import false_words
from speechrnn.files import write_atomically
from speechrnn.runtime import PRETRAINED, Recognizer, default_model, open_model
from speechrnn.runtime.benchmark import measure

SEXES = {"f": "women", "m": "men"}
EDGES_S = (1.5, 3.0, 6.0)
NOISE_SEED = 4321


def under_noise(snr_db: float) -> Change:
    """Pink noise under speech; another stretch of it under each recording."""
    draws = np.random.default_rng(NOISE_SEED)
    pink = noise.coloured(1)

    def change(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        other = pink(draws, len(waveform), sample_rate).astype(np.float32)
        power = active_power(waveform, sample_rate)
        mixed = mix(waveform, other, snr_db, power, float(np.mean(other**2)))
        return mixed / max(1.0, float(np.abs(mixed).max()))

    return change


CONDITIONS = {
    "over the telephone (8 kHz, 300 to 3400 Hz, mu-law)": over_the_telephone,
    "under pink noise, 20 dB below the speech": under_noise(20),
    "under pink noise, 10 dB below the speech": under_noise(10),
}


def line(name: str, row: Row) -> str:
    low, high = (100 * bound for bound in row.wer_ci95)
    return (
        f"| {name} | {row.utterances} | {row.words} | {row.errors} | {100 * row.wer:.1f} % "
        f"| {low:.1f} to {high:.1f} % |"
    )


def whole(name: str, found: Evaluation) -> str:
    rates = found.rates
    errors = sum(score.errors for score in rates.scores)
    return line(
        name,
        Row(name, rates.utterances, rates.words, errors, rates.wer, rates.wer_ci95),
    )


def rates_table(
    recogniser: Recognizer, dev: Sequence[Utterance], sentences: Sequence[str], folder: Path
) -> list[str]:
    """Dev as a whole, by sex, by length and by condition; greedy unless a row says otherwise."""
    lines = [
        "| | utterances | words | errors | WER | 95 % interval |",
        "|---|---:|---:|---:|---:|---|",
    ]
    plain = evaluate(recogniser, dev)
    lines.append(whole("dev", plain))
    sexes = {u.utterance_id: SEXES.get(u.speaker[:1], "") for u in dev}
    lines += [line(row.name, row) for row in by_value(plain.rates.scores, sexes)]
    lines += [
        line(row.name, row) for row in by_duration(plain.rates.scores, plain.seconds, EDGES_S)
    ]
    rate = recogniser.spec.features.sample_rate
    for number, (name, change) in enumerate(CONDITIONS.items()):
        changed = corpora.read(str(copies(dev, folder / str(number), rate, change)))
        lines.append(whole(name, evaluate(recogniser, changed)))
    corpus = decoding.Corpus(list(sentences), list(dev))
    for found in decoding.measure(recogniser, corpus, folder / "decoded")[1:]:
        row = Row(
            "", len(dev), plain.rates.words, found["errors"], found["wer"], tuple(found["wer_ci95"])
        )
        lines.append(line(f"with {found['name']}, from training transcripts", row))
    return lines


def noise_table(model: Path, dev: Sequence[Utterance], minutes: float) -> list[str]:
    """Words in an hour of what is not speech; with rejection and without it."""
    recogniser = Recognizer(model, reject=False, decoder=None)
    told = Recognizer(model, decoder=None).rejection
    rate = recogniser.spec.features.sample_rate

    def silence() -> Iterator[tuple[str, np.ndarray]]:
        yield from (("digital silence", np.zeros(10 * rate, np.float32)) for _ in range(6))

    def backwards() -> Iterator[tuple[str, np.ndarray]]:
        for utterance in dev:
            yield "dev backwards", recordings.load(utterance, rate)[::-1].copy()

    limit = told.most_doubt if told else np.inf
    clips = (
        silence(),
        noise.clips(minutes, NOISE_SEED, rate),
        noise.clips(minutes, NOISE_SEED, rate, tuple(noise.OTHER_KINDS)),
        backwards(),
    )
    lines = ["| words an hour | written | left |", "|---|---:|---:|"]
    for group in clips:
        for name, found in false_words(recogniser, limit, group).items():
            written, left = (n / found.hours for n in (found.words, found.passed))
            lines.append(f"| {name} | {written:.0f} | {left:.0f} |")
    return lines


def device_table(model: Path, dev: Sequence[Utterance], float32: Path | None) -> list[str]:
    """Size, speed, memory; and what int8 weights cost beside ``float32``, the same model."""
    cost = measure(model)
    lines = [
        "| | |",
        "|---|---:|",
        f"| size | {cost.size_bytes / 1e6:.2f} MB |",
        f"| real-time factor, one thread | {cost.real_time_factor:.4f} |",
        f"| from a fresh process to a model ready to run | {cost.load_s:.2f} s |",
        f"| peak memory of the process, 10 s of audio | {cost.peak_rss_bytes / 1e6:.0f} MB |",
        f"| multiply-adds for a second of audio | {cost.multiply_adds_per_second / 1e6:.0f} M |",
    ]
    if float32 is not None:
        rates = [
            evaluate(open_model(path, decoder=None), dev).rates.wer for path in (model, float32)
        ]
        lines.append(f"| dev WER, int8 and float32 | {rates[0]:.2%} and {rates[1]:.2%} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="an int8 file; default: the shipped one")
    parser.add_argument("--float32", type=Path, help="the same model's float32 file, to compare")
    parser.add_argument("--data", type=Path, help="an unpacked archive's folder, or a manifest")
    parser.add_argument("--card", type=Path, default=PRETRAINED / "README.md")
    parser.add_argument("--output", type=Path, default=Path("runs/model_card"))
    parser.add_argument("--minutes", type=float, default=30.0, help="of each sort of noise")
    arguments = parser.parse_args()
    model = arguments.model or default_model()
    recogniser = Recognizer(model, decoder=None)
    corpus = decoding.read(an4.find_manifest(arguments.data), "dev", recogniser)
    dev = [replace(utterance, columns={}) for utterance in corpus.scored]
    tables = {
        "rates": rates_table(recogniser, dev, corpus.sentences, arguments.output),
        "noise": noise_table(model, dev, arguments.minutes),
        "device": device_table(model, dev, arguments.float32),
    }
    text = arguments.card.read_text(encoding="utf-8")
    for name, lines in tables.items():
        marks, told = (f"<!-- {name} -->", f"<!-- end of {name} -->"), "\n".join(lines)
        text = page.between(text, *marks, f"\n\n{told}\n\n", arguments.card)
        print(f"{told}\n")
    write_atomically(arguments.card, text.encode())


if __name__ == "__main__":  # tuning starts processes, which import this file
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
