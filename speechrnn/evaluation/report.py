"""An evaluation -> one HTML page to look into it: where the errors are, and how they sound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from speechrnn.corpora.manifest import Utterance
from speechrnn.evaluation import page
from speechrnn.evaluation.alignment import Edit, align_words
from speechrnn.evaluation.breakdown import (
    Row,
    character_confusions,
    confusions,
)
from speechrnn.evaluation.calibration import Reliability
from speechrnn.evaluation.error_rates import ErrorRates, UtteranceScore, rate
from speechrnn.evaluation.evaluate import DURATION, Evaluation
from speechrnn.evaluation.worst import Recogniser, worst_utterances
from speechrnn.files import write_atomically
from speechrnn.specs import RecogniserSpec

CONFUSIONS = 12  # of words, and of characters
WORST = 30  # utterances with sound and picture
MOST_BARS = 40  # in a plot; the table has all utterances


def write_report(
    evaluation: Evaluation,
    utterances: Sequence[Utterance],
    recogniser: Recogniser,
    path: Path,
    title: str = "Evaluation",
    worst: int = WORST,
) -> None:
    """Write the page of an evaluation of ``utterances`` by ``recogniser``, atomically.

    The ``worst`` utterances, by errors, are transcribed again for their pictures: until then
    nobody had to keep posteriors. A recording that cannot be read any more has no picture.

    Raises:
        ModelError: the model itself fails.
    """
    rates = evaluation.rates
    by_id = {utterance.utterance_id: utterance for utterance in reversed(utterances)}
    wrong = sorted((s for s in rates.scores if s.errors), key=_badness)[:worst]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(_model(recogniser.spec))}</p>',
        _figures(evaluation),
        '<div class="pair">',
        *(_plot(name, rows) for name, rows in _in_order(evaluation.by)),
        _confidence(evaluation.confidence),
        "</div>",
        _confusions(rates.scores),
        worst_utterances(wrong, by_id, recogniser),
        _all(rates.scores, evaluation.seconds),
        _failures(evaluation),
        _method(rates),
    ]
    write_atomically(
        path, page.document(f"{title}: {page.percent(rates.wer)} WER", "\n".join(body))
    )


def _badness(score: UtteranceScore) -> tuple[float, float, str]:
    """Most errors first, then the highest rate."""
    return -score.errors, -rate(score.errors, score.words), score.utterance_id


def _model(spec: RecogniserSpec) -> str:
    network = spec.model
    ways = "two directions" if network.bidirectional else "one direction"
    return (
        f"Model: {network.layers} layers of {network.units} {network.cell} units in {ways}, "
        f"{spec.features.kind} features, {spec.alphabet.size - 1} symbols."
    )


def _figures(evaluation: Evaluation) -> str:
    rates = evaluation.rates
    low, high = (page.percent(bound, 1).removesuffix(" %") for bound in rates.wer_ci95)
    spread = f"95 % interval {low} to {high}, over {rates.units} {_units(rates)}"
    right = sum(score.errors == 0 for score in rates.scores)
    return page.figures(
        [
            ("Word error rate", page.percent(rates.wer), spread),
            ("Character error rate", page.percent(rates.cer), f"{rates.characters} characters"),
            (
                "Word errors",
                str(rates.substitutions + rates.deletions + rates.insertions),
                f"{rates.substitutions} substituted, {rates.deletions} deleted, "
                f"{rates.insertions} inserted, of {rates.words} words",
            ),
            (
                "Match error rate",
                page.percent(rates.mer),
                f"word information lost: {page.percent(rates.wil)}",
            ),
            (
                "Utterances",
                str(rates.utterances),
                f"{right} without an error"
                + (f"; {len(evaluation.failures)} not read" if evaluation.failures else ""),
            ),
            (
                "Real-time factor",
                f"{evaluation.real_time_factor:.3f}",
                f"{evaluation.processing_seconds:.1f} s for {evaluation.audio_seconds:.0f} s",
            ),
        ]
    )


def _units(rates: ErrorRates) -> str:
    return "speakers" if rates.resampled == "groups" else rates.resampled


def _in_order(tables: Mapping[str, Sequence[Row]]) -> list[tuple[str, Sequence[Row]]]:
    """Speakers and durations first: every corpus has these."""
    return sorted(tables.items(), key=lambda each: (each[0] != "speaker", each[0] != DURATION))


def _plot(name: str, rows: Sequence[Row]) -> str:
    """Durations as they rise, everything else worst first."""
    if name != DURATION:
        rows = sorted(rows, key=lambda row: (-row.wer, row.name))
    lead = f"The {MOST_BARS} worst of {len(rows)}." if len(rows) > MOST_BARS else ""
    drawn = [
        page.Bar(row.name, row.wer, *row.wer_ci95, f"{row.errors} of {row.words} words")
        for row in rows[:MOST_BARS]
    ]
    return page.section(
        f"By {name}", page.bars(drawn, "Word error rate; thin lines are 95 % intervals"), lead
    )


def _confidence(found: Reliability | None) -> str:
    if found is None:
        return ""
    rows = [
        page.Bar(
            f"{100 * each.lowest:.1f} to {100 * each.highest:.1f}",
            each.right,
            each.confidence,
            each.confidence,
            f"{each.words} words",
        )
        for each in found.bins
    ]
    plot = page.bars(rows, "Words that are right, by confidence; thin lines are the confidences")
    said = found.summary()
    return page.section("By confidence", plot, f"{said[:1].upper()}{said[1:]}.")


def _confusions(scores: Sequence[UtteranceScore]) -> str:
    tables = [
        page.table(
            ["Said", "Heard", "Times"],
            [
                (
                    page.text(_shown(c.reference)),
                    page.text(_shown(c.hypothesis)),
                    page.number(c.count),
                )
                for c in found
            ],
            caption,
        )
        for found, caption in (
            (confusions(scores, CONFUSIONS), "Words"),
            (character_confusions(scores, CONFUSIONS), "Characters"),
        )
        if found
    ]
    if not tables:
        return ""
    lead = "The most frequent errors; — stands for nothing, ␣ for a space."
    return page.section("Confusions", f'<div class="pair">{"".join(tables)}</div>', lead)


def _shown(side: str) -> str:
    return side.replace(" ", "␣") if side else "—"


def _all(scores: Sequence[UtteranceScore], seconds: Mapping[str, float]) -> str:
    alignments = align_words([s.reference for s in scores], [s.hypothesis for s in scores])
    rows = [
        (
            page.text(score.utterance_id),
            page.text(score.group),
            page.number(seconds.get(score.utterance_id), 1),
            page.number(score.words),
            page.number(score.errors),
            page.number(rate(score.errors, score.words), 0, 100, " %"),
            page.Cell(_inline(edits), long=True),
        )
        for score, edits in zip(scores, alignments, strict=True)
    ]
    listing = page.table(
        ["Utterance", "Speaker", "Seconds", "Words", "Errors", "WER", "Text"],
        rows,
        "Struck through: said and not heard; underlined: heard and not said.",
        marked=[score.errors > 0 for score in scores],
        filter_name="errors only",
    )
    return page.section("All utterances", listing)


def _inline(edits: Iterable[Edit]) -> str:
    parts = []
    for edit in edits:
        if edit.kind == "equal":
            parts.append(escape(edit.reference))
            continue
        if edit.reference:
            parts.append(f"<del>{escape(edit.reference)}</del>")
        if edit.hypothesis:
            parts.append(f"<ins>{escape(edit.hypothesis)}</ins>")
    return f'<span dir="auto">{" ".join(parts)}</span>'


def _failures(evaluation: Evaluation) -> str:
    if not evaluation.failures:
        return ""
    rows = [
        (page.text(f.utterance_id), page.text(f.reason), page.text(f.message, long=True))
        for f in evaluation.failures
    ]
    listing = page.table(["Utterance", "Reason", "Message"], rows, "In none of these figures.")
    return page.section("Not transcribed", listing)


def _method(rates: ErrorRates) -> str:
    rules = rates.rules
    told = (
        f"Both texts were normalised alike: Unicode {rules.unicode_form}, case: {rules.case}, "
        f"punctuation: {rules.punctuation}, but for {rules.keep!r}. Rates are errors over all "
        f"words together. Intervals are percentile bootstraps, in the first figure over "
        f"{rates.units} {_units(rates)}."
    )
    return page.section("How it was measured", "", told)
