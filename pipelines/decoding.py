"""What a lexicon and a language model are worth on AN4, both from training transcripts alone.

    python pipelines/decoding.py                            the shipped model, AN4's dev split
    python pipelines/decoding.py --model runs/an4           another model
    python pipelines/decoding.py --sweep                    other orders, and models of characters

Weights are tuned on the split that is scored; "held out" is the rate of speakers that had no part
in choosing them. Results go to OUTPUT/decoding.json, beside the models, settings and evaluations.
Where the environment variable SPEECHRNN_DATA names a folder with an4/manifest.tsv, that is used;
otherwise AN4 is downloaded.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from speechrnn import corpora
from speechrnn.corpora.utterance import Utterance
from speechrnn.decoding import arpa, kneser_ney
from speechrnn.decoding import settings as settings_file
from speechrnn.decoding.ngram import characters
from speechrnn.decoding.settings import DecoderSettings
from speechrnn.errors import SpeechRNNError
from speechrnn.evaluation import compare
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.evaluation.transcripts import given
from speechrnn.evaluation.tune import Example, Tuned, tune
from speechrnn.files import write_atomically
from speechrnn.runtime import BaseRecognizer, default_model, open_model
from speechrnn.text import normalise

console = Console(stderr=True, soft_wrap=True)


@dataclass(frozen=True)
class Corpus:
    """The sentences to make models of, and the utterances to score."""

    sentences: list[str]
    scored: list[Utterance]


def read(source: Path | str, split: str, recogniser: BaseRecognizer) -> Corpus:
    """Training transcripts as the model writes them; never those of the scored split."""
    utterances = corpora.read(source)
    rules = recogniser.alphabet.spec.rules
    return Corpus(
        [normalise(u.text, rules) for u in utterances if u.split == "train"],
        [u for u in utterances if u.split == split],
    )


def searches(corpus: Corpus, folder: Path, sweep: bool) -> dict[str, DecoderSettings]:
    """Name -> settings to be tuned; their files are written."""
    lexicon = folder / "lexicon.txt"
    words = sorted({word for sentence in corpus.sentences for word in sentence.split()})
    write_atomically(lexicon, ("\n".join(words) + "\n").encode())

    def ngrams(units: str, order: int) -> Path:
        split = str.split if units == "words" else characters
        path = folder / f"{units}-{order}.arpa"
        model = kneser_ney.estimate([split(sentence) for sentence in corpus.sentences], order)
        arpa.write_arpa(model, path)
        return path

    found = {"lexicon": DecoderSettings(lexicon=lexicon)}
    for order in (2, 3, 4, 5) if sweep else (3,):
        found[f"lexicon and {order}-gram"] = DecoderSettings(
            lexicon=lexicon, lm=ngrams("words", order)
        )
    for order in (3, 4, 5, 6) if sweep else ():
        letters = DecoderSettings(lm=ngrams("characters", order))
        found[f"{order}-gram of characters"] = letters
        found[f"lexicon and {order}-gram of characters"] = replace(letters, lexicon=lexicon)
    return found


def score(
    recogniser: BaseRecognizer, settings: DecoderSettings | None, corpus: Corpus, path: Path
) -> compare.Result:
    """Evaluate, save what `speechrnn evaluate --json` prints, and read it as `compare` does."""
    recogniser.decode_with(settings)
    result = evaluate(recogniser, corpus.scored)
    path.write_text(json.dumps(result.to_dict(), ensure_ascii=False), encoding="utf-8")
    return compare.load(path)


def row(name: str, path: Path, tuned: Tuned | None, pair: compare.Comparison | None) -> dict:
    """One system: its rate with its interval, and beside greedy decoding."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return {
        "name": name,
        "wer": data["wer"],
        "wer_ci95": data["wer_ci95"],
        "errors": data["substitutions"] + data["deletions"] + data["insertions"],
        "held_out_wer": tuned and tuned.held_out_wer,
        "settings": tuned and tuned.settings.to_dict(),
        "than_greedy": pair and pair.to_dict(),
        "sentence": pair and pair.sentence(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """For people; rates in percent."""
    lines = [f"{'':34} {'WER':>6}  {'95 %':>12}  errors  of greedy's  held out  p"]
    for each in rows:
        low, high = (100 * bound for bound in each["wer_ci95"])
        line = f"{each['name']:34} {100 * each['wer']:6.2f}  {low:4.1f} to {high:4.1f}"
        share = each["errors"] / rows[0]["errors"] if rows[0]["errors"] else math.nan
        line += f"  {each['errors']:6}  {share:11.2f}"
        if each["than_greedy"]:
            p = each["than_greedy"]["matched_pairs"]["p"]
            held_out = each["held_out_wer"]
            line += f"  {math.nan if held_out is None else 100 * held_out:8.2f}  {p:.4f}"
        lines.append(line)
    return "\n".join(lines)


def measure(
    recogniser: BaseRecognizer,
    corpus: Corpus,
    folder: Path,
    trials: int = 60,
    sweep: bool = False,
    jobs: int = 1,
) -> list[dict[str, Any]]:
    """Greedy decoding and every search, tuned and scored -> rows, also as ``decoding.json``.

    Args:
        jobs: processes of the tuning; more than one pay where the split is large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    greedy = score(recogniser, None, corpus, folder / "greedy.json")
    rows = [row("greedy", folder / "greedy.json", None, None)]
    examples = [
        Example(
            u.utterance_id,
            recogniser.reader.quiet(recogniser.listen(given(u, recogniser)).log_probs)[0],
            u.text,
            u.speaker,
        )
        for u in corpus.scored
    ]
    for name, base in searches(corpus, folder, sweep).items():
        tuned = tune(recogniser.alphabet, examples, base, trials, jobs)
        stem = name.replace(" ", "-")
        settings_file.save(folder / f"{stem}-decoder.json", tuned.settings, tuned.report())
        result = score(recogniser, tuned.settings, corpus, folder / f"{stem}.json")
        rows.append(row(name, folder / f"{stem}.json", tuned, compare.compare(greedy, result)))
        console.print(f"{name}: {rows[-1]['sentence']}")
    recogniser.decode_with(None)
    write_atomically(folder / "decoding.json", (json.dumps(rows, indent=1) + "\n").encode())
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="default: the shipped one")
    parser.add_argument("--data", type=Path, help="an unpacked archive's folder, or a manifest")
    parser.add_argument("--split", default="dev", help="what to tune on and score; default: dev")
    parser.add_argument("--output", type=Path, default=Path("runs/decoding"))
    parser.add_argument("--trials", type=int, default=60, help="pairs of weights for each search")
    parser.add_argument("--sweep", action="store_true", help="other orders and characters too")
    arguments = parser.parse_args()
    from an4 import find_manifest  # not above: the processes of the tuning need no TensorFlow

    recogniser = open_model(arguments.model or default_model(), decoder=None)
    corpus = read(find_manifest(arguments.data), arguments.split, recogniser)
    jobs = len(os.sched_getaffinity(0))
    rows = measure(recogniser, corpus, arguments.output, arguments.trials, arguments.sweep, jobs)
    print(table(rows))


if __name__ == "__main__":  # tuning starts processes, which import this file
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
