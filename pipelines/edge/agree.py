"""Whether two machines hear the same: the shipped model's answers, written on one and compared.

    python agree.py recordings FOLDER           write a few WAVs there, and their paths, one a line
    python agree.py hear OUT.npz RECORDING...   what this machine makes of them; texts, one a line
    python agree.py compare OUT.npz OTHER.npz   exit code 1 where they disagree

Needs the device side only. ``aarch64.sh`` runs it on this machine and on an emulated one.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from speechrnn import audio
from speechrnn.corpora import manifest
from speechrnn.decoding.greedy import greedy
from speechrnn.runtime import Recognizer, default_model
from speechrnn.text import Alphabet

RATE = 16_000  # Hz, of the shipped model
UTTERANCES = 8  # of AN4's dev split, evenly apart

# On posteriors, not on their logarithms, whose tails differ most where they mean least. Sums are
# taken in another order on another processor, and with int8 weights a layer's inputs are rounded
# to 127 steps a side: where one falls on the other side of a boundary, 1e-2 comes of 1e-6.
# Between x86-64 and an emulated Cortex-A72, 8e-3 was the most on eight utterances of AN4 and 1e-2
# on the whistles.
TOLERANCE = 0.05


def recordings(folder: Path) -> list[Path]:
    """16-bit WAVs: AN4 dev utterances where SPEECHRNN_DATA names a folder that has them, else
    whistles."""
    data = os.environ.get("SPEECHRNN_DATA")
    if data and (Path(data) / "an4/manifest.tsv").exists():
        dev = [u for u in manifest.read(Path(data) / "an4/manifest.tsv") if u.split == "dev"]
        chosen = dev[:: max(1, len(dev) // UTTERANCES)][:UTTERANCES]
        waveforms = {u.utterance_id: audio.load(u.path, RATE) for u in chosen}
    else:
        t = np.arange(3 * RATE) / RATE
        glide = np.sin(2 * np.pi * (300 + 200 * t) * t) * (np.sin(9 * t) > 0)
        waveforms = {"whistles": 0.3 * glide + np.random.default_rng(1).normal(0, 0.01, len(t))}
    for name, waveform in waveforms.items():
        soundfile.write(folder / f"{name}.wav", waveform, RATE, subtype="PCM_16")
    return [folder / f"{name}.wav" for name in waveforms]


def hear(out: Path, paths: list[Path]) -> None:
    """Print the texts; write them and the log_probs into an .npz, the machine's name with them."""
    recogniser = Recognizer(default_model())
    spec = recogniser.spec
    machine = platform.machine()
    answers = {"machine": np.array(machine)}
    started = time.perf_counter()
    for i, path in enumerate(paths):
        log_probs = recogniser.log_probs(audio.load(path, spec.features.sample_rate))
        # The same text that the C program gives: of all tokens, however sure.
        text = greedy(log_probs, Alphabet(spec.alphabet)).text
        answers[f"text_{i}"], answers[f"log_probs_{i}"] = np.array(text), log_probs
        print(text)
    np.savez(out, allow_pickle=False, **answers)
    taken = time.perf_counter() - started
    print(f"{machine}: {len(paths)} recordings in {taken:.1f} s", file=sys.stderr)


def compare(path: Path, other_path: Path) -> bool:
    """Print each text with the largest differences -> whether all agree."""
    one, other = np.load(path), np.load(other_path)
    print(f"{one['machine']} and {other['machine']}")
    if one.files != other.files:
        print("they heard different recordings")
        return False
    agree = True
    for i in range(sum(name.startswith("text_") for name in one.files)):
        texts = str(one[f"text_{i}"]), str(other[f"text_{i}"])
        a, b = one[f"log_probs_{i}"], other[f"log_probs_{i}"]
        if a.shape != b.shape:
            print(f"{i}: {a.shape} and {b.shape}")
            return False
        apart = float(np.abs(np.exp(a) - np.exp(b)).max())
        print(
            f"{i}: max |a - b| {np.abs(a - b).max():.1e} of log-probs, {apart:.1e} of posteriors; "
            + (f"both {texts[0]!r}" if texts[0] == texts[1] else f"{texts[0]!r} and {texts[1]!r}")
        )
        agree = agree and texts[0] == texts[1] and apart <= TOLERANCE
    print(f"{'they agree' if agree else 'THEY DISAGREE'} (tolerance of posteriors {TOLERANCE:g})")
    return agree


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["recordings", folder]:
            print(*recordings(Path(folder)), sep="\n")
        case ["hear", out, *paths] if paths:
            hear(Path(out), [Path(path) for path in paths])
        case ["compare", one, other]:
            sys.exit(not compare(Path(one), Path(other)))
        case _:
            sys.exit(__doc__)
