"""References and hypotheses, joined by utterance id -> word and character error rates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from speechrnn.errors import MissingExtra, ScoringError
from speechrnn.evaluation import bootstrap
from speechrnn.evaluation.alignment import Edit, align_words
from speechrnn.specs import TextRules
from speechrnn.text import NORMALISATION, normalise

try:
    import jiwer
except ImportError as error:  # the device side scores nothing
    raise MissingExtra("scoring", "train") from error


@dataclass(frozen=True)
class UtteranceScore:
    """One utterance: both texts as they were compared, and what it takes to mend one."""

    utterance_id: str
    group: str  # the speaker, or "" where none is named
    reference: str
    hypothesis: str
    words: int  # of the reference
    substitutions: int
    deletions: int
    insertions: int
    characters: int  # of the reference, spaces between words included
    character_errors: int

    @property
    def errors(self) -> int:
        """The word edit distance."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def alignment(self) -> tuple[Edit, ...]:
        """Word by word, with as many edits of each kind as are counted here."""
        return align_words([self.reference], [self.hypothesis])[0]


@dataclass(frozen=True)
class ErrorRates:
    """Totals over a set of utterances.

    ``wer`` = (substitutions + deletions + insertions) / words, over all utterances together, so
    a long one weighs more; ``cer`` likewise. References without any word give 0.0 if nothing
    was inserted either, and otherwise infinity, which ``to_dict`` writes as None.

    ``mer`` and ``wil`` stay within 0 and 1 however much is inserted (Morris, Maier and Green,
    Interspeech 2004). ``mer`` is the share of the alignment's places that are wrong. ``wil`` is
    1 - hits / words * hits / hypothesis words, the share of information that is lost; 0.0
    where neither side has a word.

    ``wer_ci95`` is the percentile bootstrap interval of ``wer`` over ``units`` groups or
    utterances. It says what other speakers like these would give, not another training run;
    with few groups (below 10, say) it is too narrow; a single unit makes it a point.
    """

    wer: float
    cer: float
    mer: float
    wil: float
    wer_ci95: tuple[float, float]
    resampled: Literal["groups", "utterances"]
    units: int
    utterances: int
    words: int
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    characters: int
    character_errors: int
    rules: TextRules
    scores: tuple[UtteranceScore, ...]  # in the order of their ids

    def summary(self) -> dict[str, Any]:
        """What a model's card says of it, plain data."""
        return {
            "wer": self.wer,
            "cer": self.cer,
            "wer_ci95": list(self.wer_ci95),
            "utterances": self.utterances,
            "words": self.words,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with ``rules`` and their version as ``normalisation``; infinity
        becomes None."""
        data = dataclasses.asdict(self)
        data["normalisation"] = {"version": NORMALISATION, **data.pop("rules")}
        data["scores"] = data.pop("scores")  # the long list last, for whoever reads the file
        data["wer"], data["cer"] = finite(self.wer), finite(self.cer)
        data["wer_ci95"] = [finite(bound) for bound in self.wer_ci95]
        return data

    def table(self) -> str:
        """A few lines for people; rates in percent."""
        low, high = (f"{100 * bound:.1f}" for bound in self.wer_ci95)
        spread = (
            f"95 % interval {low} to {high}, over {self.units} {self.resampled}"
            if self.units > 1
            else "a single utterance: no interval"
        )
        return "\n".join(
            [
                f"WER {100 * self.wer:6.2f} %  ({spread})",
                f"CER {100 * self.cer:6.2f} %",
                f"MER {100 * self.mer:6.2f} %, WIL {100 * self.wil:.2f} %",
                f"{self.utterances} utterances, {self.words} words: {self.hits} right, "
                f"{self.substitutions} substituted, {self.deletions} deleted, "
                f"{self.insertions} inserted",
            ]
        )


def score(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    groups: Mapping[str, str] | None = None,
    rules: TextRules | None = None,
) -> ErrorRates:
    """Texts by utterance id -> error rates, each pair normalised by the same ``rules``.

    ``groups`` names the speaker (or room, or session) of an id. The interval then resamples
    whole groups, as utterances of one speaker err together; one with no group is a group of
    its own. The result depends on no order.

    Raises:
        ScoringError: no utterances, or ids that only one side has.
    """
    rules = rules or TextRules()
    groups = groups or {}
    _check_ids(references, hypotheses)
    ids = sorted(references)
    compared = [normalise(references[i], rules) for i in ids]
    heard = [normalise(hypotheses[i], rules) for i in ids]
    by_word = jiwer.process_words(compared, heard)
    by_character = jiwer.process_characters(compared, heard)
    scores = tuple(
        UtteranceScore(
            i,
            groups.get(i, ""),
            reference,
            hypothesis,
            len(words),
            *_edits(word_edits),
            len(characters),
            sum(_edits(character_edits)),
        )
        for i, reference, hypothesis, words, word_edits, characters, character_edits in zip(
            ids,
            compared,
            heard,
            by_word.references,
            by_word.alignments,
            by_character.references,
            by_character.alignments,
            strict=True,
        )
    )
    return _totals(scores, rules)


def _totals(scores: tuple[UtteranceScore, ...], rules: TextRules) -> ErrorRates:
    def total(name: str) -> int:
        return sum(getattr(item, name) for item in scores)

    units, resampled = resampling_units(scores)
    words, insertions = total("words"), total("insertions")
    hits = words - total("substitutions") - total("deletions")
    return ErrorRates(
        wer=rate(total("errors"), words),
        cer=rate(total("character_errors"), total("characters")),
        mer=rate(total("errors"), words + insertions),
        wil=_information_lost(hits, words, words - total("deletions") + insertions),
        wer_ci95=bootstrap.interval(units),
        resampled=resampled,
        units=len(units),
        utterances=len(scores),
        words=words,
        hits=hits,
        substitutions=total("substitutions"),
        deletions=total("deletions"),
        insertions=insertions,
        characters=total("characters"),
        character_errors=total("character_errors"),
        rules=rules,
        scores=scores,
    )


def _information_lost(hits: int, said: int, heard: int) -> float:
    if said == heard == 0:
        return 0.0
    return 1 - hits / said * hits / heard if hits else 1.0


def _edits(alignment: Sequence[jiwer.AlignmentChunk]) -> tuple[int, int, int]:
    """Substitutions, deletions and insertions of one utterance."""
    count = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for chunk in alignment:
        count[chunk.type] += max(
            chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
        )
    return count["substitute"], count["delete"], count["insert"]


def resampling_units(
    scores: Sequence[UtteranceScore],
) -> tuple[np.ndarray, Literal["groups", "utterances"]]:
    """What is resampled: (units, 2) integers, the word errors and words of each."""
    sums: dict[tuple[str, str], list[int]] = {}
    for item in scores:
        key = (item.group, "") if item.group else ("", item.utterance_id)
        errors, words = sums.get(key, (0, 0))
        sums[key] = [errors + item.errors, words + item.words]
    if len(sums) > 1 and any(item.group for item in scores):
        return np.array([sums[key] for key in sorted(sums)]), "groups"
    return np.array([[item.errors, item.words] for item in scores]), "utterances"


def rate(errors: int, length: int) -> float:
    """errors / length; infinite for errors in nothing, 0.0 for none in nothing."""
    if length == 0:
        return math.inf if errors else 0.0
    return float(errors / length)


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _check_ids(references: Collection[str], hypotheses: Collection[str]) -> None:
    if not references and not hypotheses:
        raise ScoringError("there is nothing to score: no references and no hypotheses")
    missing = sorted(set(references) - set(hypotheses))
    extra = sorted(set(hypotheses) - set(references))
    problems = [
        f"{len(ids)} without a {side}: {', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}"
        for ids, side in ((missing, "hypothesis"), (extra, "reference"))
        if ids
    ]
    if problems:
        raise ScoringError(
            f"the utterance ids of {len(references)} references and {len(hypotheses)} hypotheses "
            f"differ: {'; '.join(problems)}. Score the same utterances on both sides."
        )
