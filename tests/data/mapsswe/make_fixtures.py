"""Five pairs of made-up systems, and what NIST's sctk says of each: the files beside this one.

    python tests/data/mapsswe/make_fixtures.py

needs Debian's package sctk (2.4.10 made these) and writes ref.trn, PAIR.a.trn and PAIR.b.trn, in
sclite's format "words (speaker-utterance)", and sctk.json. For every pair that is

    sctk sclite -r ref.trn trn -h PAIR.a.trn trn a -i spu_id -s -o sgml -n a    (b likewise)
    cat a.sgml b.sgml | sctk sc_stats -p -t mapsswe -v -n -      segments, mean, deviation, Z
    cat a.sgml b.sgml | sctk sc_stats -p -t mapsswe -u -n -      p

(sclite's own pipe, -p, writes what this version's sc_stats cannot read.)
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
WORDS = [
    "north", "south", "gate", "lamp", "open", "close", "seven", "eleven", "river", "stone",
    "copper", "silver", "the", "a", "of", "to", "turn", "left", "right", "slowly", "stop", "again",
]  # fmt: skip

# The share of words that each system gets wrong of itself, the share both get wrong, and whether
# B's own errors come on top of A's.
PAIRS = {
    "alike": (0.10, 0.10, 0.05, False),
    "tiny": (0.09, 0.11, 0.05, False),
    "clear": (0.08, 0.12, 0.05, False),
    "large": (0.25, 0.05, 0.02, False),
    "one_sided": (0.04, 0.008, 0.02, True),
}
UTTERANCES = 160


def mistaken(words: list[str], share: float, rng: random.Random) -> list[str]:
    """Words substituted, deleted or joined by others, at the ends of an utterance too."""
    heard = []
    for word in words:
        luck = rng.random() / share if share else 1.0
        if luck < 0.55:
            heard.append(rng.choice(WORDS))
        elif luck >= 0.8:
            heard.append(word)
        if 0.8 <= luck < 1:
            heard.append(rng.choice(WORDS))
    return heard


def pair(references: list[list[str]], seed: int, shares: tuple) -> tuple[list, list]:
    """Both systems' words. Every eighth utterance is a hard one for both."""
    own_a, own_b, common, on_top = shares
    rng = random.Random(seed)
    a, b = [], []
    for number, words in enumerate(references):
        harder = 4 if number % 8 == 0 else 1
        heard = mistaken(words, common * harder, rng)
        a.append(mistaken(heard, own_a * harder, rng))
        b.append(mistaken(a[-1] if on_top else heard, own_b * harder, rng))
    if not on_top:
        a[5], b[9] = [], []  # nothing heard
    return a, b


def write(path: Path, sentences: list[list[str]]) -> None:
    lines = (f"{' '.join(words)} (s{i % 8}-{i:03d})\n" for i, words in enumerate(sentences))
    path.write_text("".join(lines))


def shell(command: str, folder: Path) -> str:
    done = subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)
    return done.stdout.decode(errors="replace")  # sctk leaves stray bytes in its headings


def ask_sctk(name: str) -> dict[str, float | int | str]:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        shutil.copy(FOLDER / "ref.trn", folder)
        for side in "ab":
            shutil.copy(FOLDER / f"{name}.{side}.trn", folder)
            hypotheses = f"-h {name}.{side}.trn trn {side}"
            shell(f"sctk sclite -r ref.trn trn {hypotheses} -i spu_id -s -o sgml -n {side}", folder)
        statistics = "cat a.sgml b.sgml | sctk sc_stats -p -t mapsswe"
        long = shell(f"{statistics} -v -n -", folder)
        short = shell(f"{statistics} -u -n -", folder)
    result = re.search(
        r"segs: (\d+)\).*mean: +(\S+)\) \(std dev: +(\S+)\) \(Z Stat: +(\S+)\)", long
    )
    errors = re.search(r"Totals +(\d+) +(\d+) +(\d+)", long)
    probability = re.search(r"\|\|\s+a\s+\|\s+\|\s+\S+\s+(<?[\d.]+)", short)
    return {
        "segments": int(result[1]),
        "errors_a": int(errors[2]),
        "errors_b": int(errors[3]),
        "mean": float(result[2]),
        "deviation": float(result[3]),
        "z": float(result[4]),
        "p": probability[1],
    }


def main() -> None:
    rng = random.Random(0)
    references = [rng.choices(WORDS, k=rng.randint(1, 12)) for _ in range(UTTERANCES)]
    write(FOLDER / "ref.trn", references)
    answers = {}
    for seed, (name, shares) in enumerate(PAIRS.items()):
        for side, sentences in zip("ab", pair(references, seed, shares), strict=True):
            write(FOLDER / f"{name}.{side}.trn", sentences)
        answers[name] = ask_sctk(name)
    (FOLDER / "sctk.json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
