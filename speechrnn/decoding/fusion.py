"""A recurrent character language model inside the beam search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.decoding.neural import CharacterLM
from speechrnn.errors import MissingExtra
from speechrnn.language import EDGE
from speechrnn.text import Alphabet

try:
    from flashlight.lib.text import decoder as fl
except ImportError as error:
    raise MissingExtra("beam search", "decode") from error

SPACE = " "


class _Prefix:
    """What has been written so far. ``scores`` is None until something is to follow it: of the
    prefixes that a search tries it goes on with few."""

    def __init__(self, label: int, before: np.ndarray, ending: float | None = None):
        self.label, self.before = label, before  # its last label, and the state that reads it
        self.scores: list[float] | None = None  # ln P of what follows, by label; the end at EDGE
        self.after: np.ndarray | None = None
        self.ending = ending  # of a text that ends here, where that is not what ``scores`` says
        self.following: dict[int, tuple[Any, float]] = {}


class NeuralLM(fl.LM):
    """A character language model for flashlight-text: a token is a label of the recogniser.

    Scores are natural logarithms; over the tokens of a text and its end they add up to
    ``CharacterLM.score`` of what ``Alphabet.decode`` makes of them: a space at either end or
    behind another counts for nothing, wherever the search puts one.

    For the decoder without a lexicon, and with one where its language model is one of tokens. What
    has been computed is kept, 4 bytes a unit for each prefix that was continued and about a
    kilobyte for each that was tried, until ``reset``, which is to come before each recording. One
    object serves one search at a time.

    Args:
        folder: the run directory of the language model.
        alphabet: the recogniser's.

    Raises:
        ModelError: no language model there, or one that does not know the recogniser's symbols.
    """

    def __init__(self, folder: str | Path, alphabet: Alphabet):
        super().__init__()
        self.model = CharacterLM.load(folder)
        symbols = alphabet.spec.symbols
        # Of the blank, which is never asked for, the edge.
        self._labels = [EDGE, *self.model.spec.labels_of(symbols)]
        self._space = symbols.index(SPACE) + 1 if SPACE in symbols else None
        # The keys stay alive here: a state that Python lets go of comes back as another object.
        self._prefixes: dict[Any, _Prefix] = {}

    def reset(self) -> None:
        """Forget the recording before."""
        self._prefixes.clear()

    def start(self, start_with_nothing: bool) -> Any:
        state = fl.LMState()
        self._prefixes[state] = _Prefix(EDGE, self.model.start()[0])
        return state

    def score(self, state: Any, token: int) -> tuple[Any, float]:
        prefix = self._prefixes[state]
        found = prefix.following.get(token)
        if found is None:
            found = prefix.following[token] = self._follow(state, prefix, token)
        return found

    def finish(self, state: Any) -> tuple[Any, float]:
        prefix = self._prefixes[state]
        ending = self._scores(prefix)[EDGE] if prefix.ending is None else prefix.ending
        return state.child(-1), ending

    def _follow(self, state: Any, prefix: _Prefix, token: int) -> tuple[Any, float]:
        scores, following = self._scores(prefix), state.child(token)
        after = prefix.after
        is_start = prefix.label == EDGE
        if token == self._space and (is_start or prefix.ending is not None):
            self._prefixes[following] = again = _Prefix(prefix.label, prefix.before, prefix.ending)
            again.scores, again.after = scores, after
            return following, 0.0
        # A text that ends in a space ends before it: the space's own probability is given back.
        ending = scores[EDGE] - scores[token] if token == self._space else None
        self._prefixes[following] = _Prefix(self._labels[token], after, ending)
        return following, scores[token]

    def _scores(self, prefix: _Prefix) -> list[float]:
        if prefix.scores is None:
            log_probs, states = self.model.step(prefix.before[None], [prefix.label])
            prefix.scores = log_probs[0, self._labels].tolist()
            prefix.after = states[0]
        return prefix.scores
