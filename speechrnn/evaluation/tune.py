"""Posteriors and references of a development set -> the settings of a beam search that suit them.

The posteriors are computed once; every trial decodes them again. Which trial is next, optuna's
tree-structured Parzen estimator says (Bergstra et al., NeurIPS 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from speechrnn.decoding.beam import BeamDecoder
from speechrnn.decoding.greedy import greedy
from speechrnn.decoding.settings import DecoderSettings
from speechrnn.errors import MissingExtra, ScoringError, UsageError
from speechrnn.evaluation.error_rates import ErrorRates, score
from speechrnn.evaluation.processes import pool
from speechrnn.text import Alphabet

try:
    import optuna
except ImportError as error:
    raise MissingExtra("tuning a decoder", "tune") from error

# What is tried: two weights of natural logarithms, and nats.
LM_WEIGHT, RESCORE_WEIGHT, WORD_SCORE = (0.0, 1.5), (0.0, 1.0), (-2.0, 5.0)
TUNED = {"lm_weight": LM_WEIGHT, "rescore_weight": RESCORE_WEIGHT, "word_score": WORD_SCORE}
BEAMS = (4, 8, 16, 32, 64, 128)
AT_ONCE = 4  # trials between two looks at their results: as many on one core as on sixteen
FOLDS = 5
CHARACTERS_WEIGH = 0.1  # of the character error rate: between equal word error rates it decides

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Example:
    """An utterance to tune on: (frames, labels) ``log_probs``, and what was said."""

    utterance_id: str
    log_probs: np.ndarray
    reference: str
    speaker: str = ""


@dataclass(frozen=True)
class Trial:
    """A choice of weights, and what came of it on each utterance, in the order of the examples."""

    lm_weight: float
    rescore_weight: float
    word_score: float
    errors: np.ndarray  # of words
    character_errors: np.ndarray


@dataclass(frozen=True)
class Tuned:
    """Settings, and what they give.

    ``rates`` are of the utterances that the settings were chosen on, and so a little kind;
    ``held_out_wer`` is that of speakers (or utterances, where no speakers are known) whose errors
    had no part in choosing among the trials: in each of ``FOLDS`` the best trial of the others is
    counted. What was tried, and the beam, do depend on all of them. None of a single one.
    """

    settings: DecoderSettings
    rates: ErrorRates
    greedy: ErrorRates
    held_out_wer: float | None
    trials: tuple[Trial, ...]
    by_beam: Mapping[int, float]  # the word error rate with other beams
    tuned: tuple[str, ...]  # which of the settings

    def report(self) -> dict[str, Any]:
        """Plain data for JSON, beside the settings."""
        return {
            "greedy": self.greedy.summary(),
            "tuned": self.rates.summary(),
            "held_out_wer": self.held_out_wer,
            "wer_by_beam": {str(beam): wer for beam, wer in self.by_beam.items()},
            "trials": [
                {**{name: getattr(t, name) for name in TUNED}, "errors": int(sum(t.errors))}
                for t in self.trials
            ],
        }

    def table(self) -> str:
        """For people; rates in percent."""
        lines = []
        for name, rates in (("greedy", self.greedy), ("tuned", self.rates)):
            low, high = (100 * bound for bound in rates.wer_ci95)
            lines.append(f"{name:10} WER {100 * rates.wer:6.2f} %  ({low:.1f} to {high:.1f})")
        if self.held_out_wer is not None:
            lines.append(f"{'held out':10} WER {100 * self.held_out_wer:6.2f} %")
        chosen = asdict(self.settings)
        lines += [f"{name:10} {chosen[name]:g}" for name in ("beam", *self.tuned)]
        lines.append(
            "by beam    "
            + ", ".join(f"{beam}: {100 * wer:.2f} %" for beam, wer in self.by_beam.items())
        )
        return "\n".join(lines)


def tune(
    alphabet: Alphabet,
    examples: Sequence[Example],
    base: DecoderSettings,
    trials: int = 60,
    jobs: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuned:
    """Find ``lm_weight``, ``rescore_weight`` and ``word_score``, as far as they matter, with the
    beam of ``base``, then the narrowest beam that makes no more errors. The same seed gives the
    same result, however many ``jobs`` there are.

    Of trials the best is taken by the mean over its nearest neighbours too: on little data the
    single best owes much to chance. With the beam of ``base`` it makes no more errors than
    ``base`` does.

    Args:
        progress: called with the trials that are done, and all.

    Raises:
        ScoringError: no examples, or none with a word.
        UsageError: there is nothing to tune: neither a lexicon nor a language model.
        DataError, ModelError: as ``BeamDecoder`` does.
    """
    if not any(example.reference.split() for example in examples):
        raise ScoringError("there is not one word to tune on; check the manifest and its split")
    spans = ranges(alphabet, base)
    with pool(jobs, _start, (alphabet, examples, base)) as executor:
        found: list[Trial] = []
        for trial in _search(executor, spans, base, trials, seed):
            found.append(trial)
            if progress:
                progress(len(found), trials + len(BEAMS))
        best = found[_choice(found, slice(None))]
        settings = replace(base, **{name: getattr(best, name) for name in spans})
        by_beam = {}
        widths = sorted({*(beam for beam in BEAMS if beam < base.beam), base.beam})
        for width, texts in zip(
            widths, executor.map(_decode, [replace(settings, beam=b) for b in widths]), strict=True
        ):
            by_beam[width] = texts
            if progress:
                progress(len(found) + len(by_beam), trials + len(widths))
    rates = {width: _rates(examples, texts, alphabet) for width, texts in by_beam.items()}
    cost = {width: r.wer + CHARACTERS_WEIGH * r.cer for width, r in rates.items()}
    narrowest = min(width for width in widths if cost[width] <= cost[base.beam])
    held_out = _held_out_errors(found, examples)
    return Tuned(
        settings=replace(settings, beam=narrowest),
        rates=rates[narrowest],
        greedy=_rates(examples, [greedy(e.log_probs, alphabet).text for e in examples], alphabet),
        held_out_wer=None if held_out is None else held_out / rates[narrowest].words,
        trials=tuple(found),
        by_beam={width: rates[width].wer for width in widths},
        tuned=tuple(spans),
    )


def ranges(alphabet: Alphabet, base: DecoderSettings) -> dict[str, tuple[float, float]]:
    """What there is to tune, and between which values.

    Raises:
        UsageError: nothing.
        DataError, ModelError: as ``BeamDecoder`` does.
    """
    spans = {}
    if base.lm or base.neural_lm:
        spans["lm_weight"] = LM_WEIGHT
    if base.rescore_lm:
        spans["rescore_weight"] = RESCORE_WEIGHT
    if BeamDecoder(alphabet, replace(base, word_score=0.0)).has_lexicon:
        spans["word_score"] = WORD_SCORE
    if not spans:
        raise UsageError("there is nothing to tune; name a language model, a lexicon or both")
    return spans


def _search(
    executor: Executor,
    spans: Mapping[str, tuple[float, float]],
    base: DecoderSettings,
    trials: int,
    seed: int,
) -> Iterator[Trial]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({name: getattr(base, name) for name in spans}, skip_if_exists=True)
    done = 0
    while done < trials:
        asked = [study.ask() for _ in range(min(AT_ONCE, trials - done))]
        values = [
            {name: each.suggest_float(name, *spans[name]) for name in spans} for each in asked
        ]
        running: list[Future] = [executor.submit(_score, replace(base, **v)) for v in values]
        for each, future in zip(asked, running, strict=True):
            trial = future.result()
            study.tell(each, _cost(trial, slice(None)))
            done += 1
            yield trial


def _cost(trial: Trial, rows: Any) -> float:
    """What is to be small, over some of the utterances."""
    # A word has some five characters, so that the sums compare as the rates do.
    return float(
        trial.errors[rows].sum() + CHARACTERS_WEIGH * trial.character_errors[rows].sum() / 5
    )


def _choice(found: Sequence[Trial], rows: Any) -> int:
    """The trial to take, by the errors on ``rows``: of those no worse than the first, which has the
    settings that were given, that with the least mean of its own cost and its nearest
    neighbours'."""
    cost = np.array([_cost(trial, rows) for trial in found])
    places = np.array(
        [[getattr(t, name) / np.ptp(values) for name, values in TUNED.items()] for t in found]
    )
    distances = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : min(5, len(found))]
    return int(np.argmin(np.where(cost <= cost[0], cost[nearest].mean(axis=1), np.inf)))


def _held_out_errors(found: Sequence[Trial], examples: Sequence[Example]) -> int | None:
    """Word errors on each fold of the trial that the other folds choose."""
    known = len({example.speaker for example in examples}) > 1
    groups = [e.speaker if known and e.speaker else e.utterance_id for e in examples]
    folds = {group: at % FOLDS for at, group in enumerate(sorted(set(groups)))}
    if len(folds) < 2:
        return None
    fold = np.array([folds[group] for group in groups])
    return sum(
        int(found[_choice(found, fold != k)].errors[fold == k].sum()) for k in set(fold.tolist())
    )


def _rates(examples: Sequence[Example], texts: Sequence[str], alphabet: Alphabet) -> ErrorRates:
    return score(
        references={e.utterance_id: e.reference for e in examples},
        hypotheses={e.utterance_id: text for e, text in zip(examples, texts, strict=True)},
        groups={e.utterance_id: e.speaker for e in examples},
        rules=alphabet.spec.rules,
    )


# Of a process of the pool: the examples, and a decoder with the files already read.
_EXAMPLES: Sequence[Example] = ()
_DECODER: Any = None


def _start(alphabet: Alphabet, examples: Sequence[Example], base: DecoderSettings) -> None:
    global _EXAMPLES, _DECODER
    _EXAMPLES, _DECODER = examples, BeamDecoder(alphabet, base)


def _decode(settings: DecoderSettings) -> list[str]:
    decoder = _DECODER.again(settings)
    return [decoder.decode(example.log_probs).text for example in _EXAMPLES]


def _score(settings: DecoderSettings) -> Trial:
    rates = _rates(_EXAMPLES, _decode(settings), _DECODER.alphabet)
    by_id = {each.utterance_id: each for each in rates.scores}
    scores = [by_id[example.utterance_id] for example in _EXAMPLES]
    return Trial(
        **{name: getattr(settings, name) for name in TUNED},
        errors=np.array([each.errors for each in scores]),
        character_errors=np.array([each.character_errors for each in scores]),
    )
