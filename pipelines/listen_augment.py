"""What a recipe's augmentation does to its recordings, to hear and to see, as one page.

    python pipelines/listen_augment.py configs/an4_telephone.yaml -o augmentation.html
    python pipelines/listen_augment.py mine.yaml augment.room.probability=1 -o augmentation.html

For a few training utterances of different speakers: as recorded, with each change of the recipe
alone, and with all of them as drawn in some epochs. Every change comes with a player, its log-mel
features and what was drawn. --catalogue shows all changes there are that need no folder, at their
usual ranges, instead of the recipe's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from speechrnn import recipe
from speechrnn.augmentation import AugmentSection
from speechrnn.data.augment import Augmenter, masks
from speechrnn.data.dataset import TRAIN, Batches, recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.errors import SpeechRNNError
from speechrnn.evaluation import page
from speechrnn.evaluation.pictures import feature_levels, features_picture
from speechrnn.files import write_atomically

CATALOGUE: dict[str, Any] = {
    "speed": [0.85, 1.15],
    "tempo": [0.8, 1.2],
    "pitch_cents": [-250, 250],
    "room": {},
    "babble": {"snr_db": [3, 12]},
    "gain_db": [-10, 6],
    "band": {},
    "telephone": {},
    "frequency_masks": 2,
    "frequency_mask_width": 12,
    "time_masks": 3,
}
NAMES = {
    "speed": "Speed",
    "tempo": "Tempo",
    "pitch_cents": "Pitch",
    "room": "Room",
    "babble": "Babble",
    "noise": "Noise",
    "gain_db": "Gain",
    "band": "Band",
    "telephone": "Telephone",
}
MASKS = ("frequency_masks", "frequency_mask_width", "time_masks", "time_mask_ms")
SHORTEST_S, LONGEST_S = 1.5, 5.0  # of the utterances shown, where there are such


def alone(section: AugmentSection) -> Iterator[tuple[str, AugmentSection]]:
    """Each change by itself, certain where the recipe leaves it to chance."""
    written = section.model_dump(mode="json")
    for name, title in NAMES.items():
        value = written[name]
        if value is None:
            continue
        if isinstance(value, dict) and "probability" in value:
            value = value | {"probability": 1}
        yield title, AugmentSection.model_validate({name: value})
    if section.frequency_masks or section.time_masks:
        kept = {name: written[name] for name in (*MASKS, "time_mask_fraction")}
        yield "SpecAugment", AugmentSection.model_validate(kept)


Spans = list[list[int]]
Version = tuple[str, np.ndarray, str, Spans, Spans]  # title, waveform, words, bands, stretches


class Gallery:
    """The changes of one section, of utterances of one split.

    Args:
        epoch: whose ranges count; draws are of this epoch and those before it.
    """

    def __init__(self, source: Batches, section: AugmentSection, epoch: int):
        self.source, self.epoch = source, epoch
        self.spec = source.spec.features
        self.alone = [(title, self._augmenter(each)) for title, each in alone(section)]
        self.together = self._augmenter(section)

    def _augmenter(self, section: AugmentSection) -> Augmenter:
        loaded = self.source.recipe
        cache = loaded.prepared / "augment"
        return Augmenter(section, self.source.spec, loaded.seed, self.source, cache)

    def utterance(self, number: int, draws: int) -> str:
        """All versions of an utterance, as HTML."""
        row, waveform = self.source.rows[number], self.source.waveform(number)
        key = self.source.key(number)
        versions: list[Version] = [("As recorded", waveform, "", [], [])]
        for title, augmenter in self.alone:
            changed, done = augmenter.utterance(waveform, self.epoch, key)
            bands, stretches = self._masks(augmenter, changed, self.epoch, key)
            words = "; ".join(done.values()) or _masked(bands, stretches, self.spec.hop_ms)
            if words:  # a range of nothing does nothing
                versions.append((title, changed, words, bands, stretches))
        for epoch in range(self.epoch, max(-1, self.epoch - draws), -1):
            changed, done = self.together.utterance(waveform, epoch, key)
            bands, stretches = self._masks(self.together, changed, epoch, key)
            told = [f"{NAMES[name].lower()}: {words}" for name, words in done.items()]
            if masked := _masked(bands, stretches, self.spec.hop_ms):
                told.append(masked)
            words = "; ".join(told) or "nothing was drawn"
            versions.append((f"All, in epoch {epoch + 1}", changed, words, bands, stretches))
        seconds = max(len(version[1]) for version in versions) / self.spec.sample_rate
        levels = feature_levels(waveform, self.spec)
        cards = "\n".join(self._card(row.utterance_id, seconds, levels, *each) for each in versions)
        speaker = f", speaker {row.speaker}" if row.speaker else ""
        return page.section(
            f"“{row.text}”", f'<div class="pair">{cards}</div>', row.utterance_id + speaker
        )

    def _masks(
        self, augmenter: Augmenter, waveform: np.ndarray, epoch: int, key: int
    ) -> tuple[Spans, Spans]:
        """The spans that are not empty, as training draws them."""
        draws = augmenter.draws(epoch, key, "masks")
        spans = masks.draw(augmenter.section, self.spec, len(waveform), epoch, draws)
        bands, stretches = (
            [[first, behind] for first, behind in each.tolist() if first < behind] for each in spans
        )
        return bands, stretches

    def _card(
        self,
        name: str,
        seconds: float,
        levels: tuple[float, float],
        title: str,
        waveform: np.ndarray,
        words: str,
        bands: Spans,
        stretches: Spans,
    ) -> str:
        spoken = f"{name}, {title.lower()}"
        shown_bands = bands if self.spec.kind == "log_mel" else []  # others have no place in it
        drawn = features_picture(waveform, self.spec, seconds, levels, shown_bands, stretches)
        player = page.player(page.flac(waveform, self.spec.sample_rate), spoken)
        return (
            f'<div class="case"><header><h3>{escape(title)}</h3>'
            f'<span class="remark">{escape(words)}</span></header>{player}'
            f"{page.figure(drawn, seconds, spoken, 'log-mel features')}</div>"
        )


def _masked(bands: Spans, stretches: Spans, hop_ms: float) -> str:
    """Masks in words."""
    parts = []
    if bands:
        named = [str(a + 1) if b == a + 1 else f"{a + 1} to {b}" for a, b in bands]
        parts.append(f"bands {' and '.join(named)}")
    if stretches:
        parts.append(f"{' and '.join(f'{(b - a) * hop_ms:.0f}' for a, b in stretches)} ms")
    return f"masked {', '.join(parts)}" if parts else ""


def chosen(source: Batches, count: int) -> list[int]:
    """Utterances of the usual length, a new speaker each time as long as there are any."""
    samples = np.array([source.rows[i].samples for i in range(source.size)])
    seconds = samples / source.spec.features.sample_rate
    fit = np.flatnonzero((seconds >= SHORTEST_S) & (seconds <= LONGEST_S)).tolist()
    order = fit or list(range(source.size))
    first: dict[str, int] = {}
    for number in order:
        first.setdefault(source.rows[number].speaker, number)
    others = [number for number in order if number not in first.values()]
    return [*first.values(), *others][:count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-o", "--output", type=Path, default=Path("augmentation.html"))
    parser.add_argument("--utterances", type=int, default=3)
    parser.add_argument("--draws", type=int, default=3, help="epochs of all changes together")
    parser.add_argument("--epoch", type=int, help="from 1; default: the last, where ramps end")
    parser.add_argument("--catalogue", action="store_true", help="all changes, not the recipe's")
    arguments = parser.parse_intermixed_args()
    if arguments.epoch is not None and arguments.epoch < 1:
        parser.error(f"--epoch {arguments.epoch}: epochs count from 1")
    if arguments.utterances < 1:
        parser.error(f"--utterances {arguments.utterances}: give 1 or more")
    if not arguments.output.absolute().parent.is_dir():
        parser.error(f"--output {arguments.output}: there is no such folder; make it first")
    loaded = recipe.load(arguments.recipe, arguments.overrides)
    index = prepare(loaded)
    source = Batches(loaded, recogniser_spec(loaded, index), index, TRAIN)
    section = loaded.augment
    if arguments.catalogue:
        section = AugmentSection.model_validate(CATALOGUE)
    gallery = Gallery(source, section, (arguments.epoch or loaded.training.epochs) - 1)
    shown = track(chosen(source, arguments.utterances), "drawing", console=Console(stderr=True))
    body = "".join(gallery.utterance(number, arguments.draws) for number in shown)
    title = f"Augmentation of {loaded.name}"
    lead = (
        "Every utterance as it was recorded, with each change alone, and with all changes as "
        f"training draws them. Seed {loaded.seed}. What is grey is masked. A click in a picture "
        "plays from there."
    )
    head = f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
    write_atomically(arguments.output, page.document(title, head + body))
    print(arguments.output)


if __name__ == "__main__":
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
