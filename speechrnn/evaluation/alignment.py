"""References and hypotheses -> which word, or character, stands for which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from speechrnn.errors import MissingExtra

try:
    import jiwer
except ImportError as error:  # the device side scores nothing
    raise MissingExtra("scoring", "train") from error

Kind = Literal["equal", "substitute", "delete", "insert"]


@dataclass(frozen=True)
class Edit:
    """One place of an alignment; a side that has nothing there is ""."""

    kind: Kind
    reference: str
    hypothesis: str


def align_words(references: Sequence[str], hypotheses: Sequence[str]) -> list[tuple[Edit, ...]]:
    """Normalised texts, pair by pair -> alignments of fewest edits, word by word.

    The references of an alignment's edits, joined, are the reference, and so for the hypothesis.
    Of several alignments with as few edits it is the one that ``error_rates.score`` counts.
    """
    return _align(jiwer.process_words, references, hypotheses)


def align_characters(
    references: Sequence[str], hypotheses: Sequence[str]
) -> list[tuple[Edit, ...]]:
    """``align_words``, character by character; a space between words is one."""
    return _align(jiwer.process_characters, references, hypotheses)


def _align(
    process: Callable[..., jiwer.WordOutput | jiwer.CharacterOutput],
    references: Sequence[str],
    hypotheses: Sequence[str],
) -> list[tuple[Edit, ...]]:
    if not references:
        return []
    output = process(list(references), list(hypotheses))
    pairs = zip(output.references, output.hypotheses, output.alignments, strict=True)
    return [
        tuple(edit for chunk in chunks for edit in _edits(chunk, reference, hypothesis))
        for reference, hypothesis, chunks in pairs
    ]


def _edits(
    chunk: jiwer.AlignmentChunk, reference: Sequence[str], hypothesis: Sequence[str]
) -> list[Edit]:
    """The single edits of a run of one kind."""
    said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
    heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
    kind: Kind = chunk.type  # type: ignore[assignment]  # jiwer says str
    if kind == "delete":
        return [Edit(kind, word, "") for word in said]
    if kind == "insert":
        return [Edit(kind, "", word) for word in heard]
    return [Edit(kind, a, b) for a, b in zip(said, heard, strict=True)]
