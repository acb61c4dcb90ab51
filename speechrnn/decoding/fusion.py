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
# Prefixes that are remembered: twice so many at most, of half a kilobyte each. A frame adds the
# beam's hypotheses times the symbols tried.
REMEMBERED = 50_000


class _Prefix:
    """What has been written so far: ``state`` is the search's name for it.

    ``before`` is the model's state that is to read the last label, ``score`` ln P of that label,
    ``ending`` ln P of the end where that is not what ``scores`` has at EDGE. ``scores`` is empty
    until something is to follow, for of the prefixes that a search tries it goes on with few; then
    it is ln P of what follows, by the recogniser's labels, and ``after`` the model's state there.
    """

    __slots__ = ("after", "before", "ending", "following", "label", "score", "scores", "state")

    def __init__(
        self, label: int, before: np.ndarray, score: float = 0.0, ending: float | None = None
    ):
        self.state = fl.LMState()
        self.label, self.before, self.score, self.ending = label, before, score, ending
        self.scores: list[float] = []
        self.after = before
        self.following: dict[int, _Prefix] = {}


class NeuralLM(fl.LM):
    """A character language model for flashlight-text: a token is a label of the recogniser.

    Scores are natural logarithms; over the tokens of a text and its end they add up to
    ``CharacterLM.score`` of what ``Alphabet.decode`` makes of them: a space at either end or
    behind another counts for nothing, wherever the search puts one.

    For the decoder without a lexicon, and with one where its language model is one of tokens. What
    has been computed is kept until ``reset``, which is to come before each recording, or until it
    has not been asked for while ``REMEMBERED`` others were: memory does not grow with length. One
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
        # States are no children of one another, as flashlight's could be: those live as long as
        # the first.
        self._recent: dict[Any, _Prefix] = {}
        self._older: dict[Any, _Prefix] = {}

    def reset(self) -> None:
        """Forget the recording before."""
        self._recent, self._older = {}, {}

    def start(self, start_with_nothing: bool) -> Any:
        prefix = _Prefix(EDGE, self.model.start())
        self._recent[prefix.state] = prefix
        return prefix.state

    def score(self, state: Any, token: int) -> tuple[Any, float]:
        prefix = self._recent.get(state) or self._recalled(state)
        if not prefix.scores:
            self._read(prefix)
        following = prefix.following.get(token)
        if following is None:
            following = prefix.following[token] = self._follow(prefix, token)
        self._recent[following.state] = following
        return following.state, following.score

    def finish(self, state: Any) -> tuple[Any, float]:
        prefix = self._recent.get(state) or self._recalled(state)
        if not prefix.scores:
            self._read(prefix)
        return state, prefix.scores[EDGE] if prefix.ending is None else prefix.ending

    def _recalled(self, state: Any) -> _Prefix:
        prefix = self._older.get(state)
        if prefix is None:
            # A search asks about every hypothesis at nearly every frame. Of one that it has not
            # asked about for so long the text so far is left out of account.
            prefix = _Prefix(EDGE, self.model.start())
            prefix.state = state
        self._recent[state] = prefix
        return prefix

    def _follow(self, prefix: _Prefix, token: int) -> _Prefix:
        if len(self._recent) > REMEMBERED:
            self._older, self._recent = self._recent, {prefix.state: prefix}
        if token != self._space:
            return _Prefix(self._labels[token], prefix.after, prefix.scores[token])
        if prefix.label == EDGE or prefix.ending is not None:  # this space is none of the text
            same = _Prefix(prefix.label, prefix.before, 0.0, prefix.ending)
            same.scores, same.after = prefix.scores, prefix.after
            return same
        # A text that ends in a space ends before it: the space's own probability is given back.
        score = prefix.scores[token]
        return _Prefix(self._labels[token], prefix.after, score, prefix.scores[EDGE] - score)

    def _read(self, prefix: _Prefix) -> None:
        log_probs, prefix.after = self.model.step(prefix.before, [prefix.label])
        prefix.scores = log_probs[0, self._labels].tolist()
