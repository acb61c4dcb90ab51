"""Beam search beside flashlight-text called directly, and what an evaluation adds to decoding.

    python pipelines/benchmarks/beam_search.py             AN4 dev by the shipped model, beam 64
    python pipelines/benchmarks/beam_search.py --rounds 20 --beam 16

All on one thread, in turn, in this process; ratios are of the best of the rounds. Files are those
of pipelines/decoding.py in --files; without them it makes them first. Both sides search the same
posteriors with the same lexicon, 3-gram and options; texts must agree.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.corpora import manifest
from speechrnn.decoding import settings as settings_file
from speechrnn.decoding.beam import BeamDecoder
from speechrnn.decoding.lexicon import arpa_words
from speechrnn.decoding.settings import DecoderSettings
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.runtime import default_model, open_model
from speechrnn.text import Alphabet

PIPELINES = Path(__file__).parents[1]


def directly(alphabet: Alphabet, settings: DecoderSettings) -> Callable[[np.ndarray], str]:
    """The search as flashlight-text's own documentation sets it up."""
    from flashlight.lib.text import decoder as fl
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    label = {symbol: number for number, symbol in enumerate(alphabet.spec.symbols, start=1)}
    separator = label[" "]
    words = Dictionary()
    for word in [*sorted(set(arpa_words(settings.lm or ""))), "<unk>"]:
        words.add_entry(word)
    lm = KenLM(str(settings.lm), words)
    trie, start = fl.Trie(alphabet.spec.size, separator), lm.start(False)
    for number in range(words.index_size() - 1):
        spelling = [*(label[symbol] for symbol in words.get_entry(number)), separator]
        trie.insert(spelling, number, lm.score(start, number)[1])
    trie.smear(fl.SmearingMode.MAX)
    options = fl.LexiconDecoderOptions(
        *(settings.beam, alphabet.spec.size, settings.threshold),
        *(settings.lm_weight * math.log(10), settings.word_score, -math.inf, 0.0),
        *(False, fl.CriterionType.CTC),
    )
    unknown = words.get_index("<unk>")
    decoder = fl.LexiconDecoder(options, trie, lm, separator, 0, unknown, [], False)
    last = np.full([1, alphabet.spec.size], -1e4, np.float32)
    last[0, separator] = 0

    def decode(log_probs: np.ndarray) -> str:
        emissions = np.concatenate([log_probs, last])
        best = decoder.decode(emissions.ctypes.data, *emissions.shape)[0]
        return " ".join(words.get_entry(word) for word in best.words if word >= 0)

    decode.kept = (words, lm, trie)  # type: ignore[attr-defined]  # the decoder holds none of them
    return decode


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, default=Path("runs/decoding"))
    parser.add_argument("--beam", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--data", type=Path, help="AN4: an unpacked archive's folder, or a manifest"
    )
    parser.add_argument("--trials", type=int, default=60, help="where the files are made first")
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    if not (arguments.files / "decoding.json").exists():
        make = [sys.executable, PIPELINES / "decoding.py", "--output", arguments.files]
        make += ["--trials", str(arguments.trials)]
        make += ["--data", arguments.data] if arguments.data else []
        subprocess.run(make, check=True)
    sys.path.insert(0, str(PIPELINES))
    from an4 import find_manifest

    recogniser = open_model(default_model(), decoder=None)
    dev = [u for u in manifest.read(find_manifest(arguments.data)) if u.split == "dev"]
    listened = [recogniser.listen(u.path) for u in dev]
    tuned = settings_file.load(arguments.files / "lexicon-and-3-gram-decoder.json")
    settings = DecoderSettings(
        **{**vars(tuned), "beam": arguments.beam, "lexicon": None}  # the model's words are its own
    )
    ours, theirs = (
        BeamDecoder(recogniser.alphabet, settings),
        directly(recogniser.alphabet, settings),
    )
    differ = [
        u.utterance_id
        for u, each in zip(dev, listened, strict=True)
        if ours.decode(each.log_probs).text != theirs(each.log_probs)
    ]
    recogniser.decode_with(settings)
    recogniser.rejection = None
    reader = recogniser.reader
    sides: dict[str, Callable[[], Any]] = {
        "flashlight": lambda: [theirs(each.log_probs) for each in listened],
        "ours": lambda: [ours.decode(each.log_probs) for each in listened],
        "listen and decode": lambda: [
            reader.decoder and reader.decoder.decode(recogniser.listen(u.path).log_probs)
            for u in dev
        ],
        "transcribe": lambda: [recogniser.transcribe(u.path) for u in dev],
        "evaluate": lambda: evaluate(recogniser, dev, progress=False),
    }
    best = dict.fromkeys(sides, math.inf)
    for _ in range(arguments.rounds):
        for name, work in sides.items():
            best[name] = min(best[name], seconds(work))
    result = {
        "beam": arguments.beam,
        "utterances": len(dev),
        "utterances_a_second": {name: len(dev) / best[name] for name in sides},
        "speed_of_flashlight": best["flashlight"] / best["ours"],
        "evaluation_overhead": best["evaluate"] / best["listen and decode"] - 1,
        "texts_that_differ": differ,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    for name in sides:
        print(f"{name:18} {len(dev) / best[name]:8.0f} utterances a second")
    speed = result["speed_of_flashlight"]
    print(f"decoding at beam {arguments.beam}: {speed:.2f} of flashlight's speed")
    print(f"evaluation adds {100 * best['evaluate'] / best['listen and decode'] - 100:.1f} %")
    print(f"texts that differ: {', '.join(differ) or 'none'}")


if __name__ == "__main__":
    main()
