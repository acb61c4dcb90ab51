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
    """What has been written so far and is gone on with.

    ``scores`` is ln P of what follows, by the recogniser's labels, that of the end at EDGE;
    ``state`` the model's behind it. ``ending`` is ln P of the end where that is another.
    ``following`` holds what has been asked for.
    """

    __slots__ = ("ending", "following", "is_start", "scores", "state")

    def __init__(
        self, scores: list[float], state: np.ndarray, is_start: bool, ending: float | None
    ):
        self.scores, self.state, self.is_start, self.ending = scores, state, is_start, ending
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
        # The keys stay alive here: a state that Python lets go of comes back as another object. Of
        # the prefixes that a search tries it goes on with few: the others are a parent and a token.
        self._prefixes: dict[Any, _Prefix | tuple[_Prefix, int]] = {}

    def reset(self) -> None:
        """Forget the recording before."""
        self._prefixes.clear()

    def start(self, start_with_nothing: bool) -> Any:
        state = fl.LMState()
        self._prefixes[state] = self._read(self.model.start(), EDGE, True, None)
        return state

    def score(self, state: Any, token: int) -> tuple[Any, float]:
        prefix = self._prefixes[state]
        if isinstance(prefix, tuple):
            prefix = self._prefixes[state] = self._continued(*prefix)
        found = prefix.following.get(token)
        if found is None:
            following = state.child(token)
            self._prefixes[following] = prefix, token
            counts = token != self._space or not self._idle_space(prefix)
            found = prefix.following[token] = following, prefix.scores[token] if counts else 0.0
        return found

    def finish(self, state: Any) -> tuple[Any, float]:
        prefix = self._prefixes[state]
        if isinstance(prefix, tuple):
            prefix = self._prefixes[state] = self._continued(*prefix)
        return state.child(-1), prefix.scores[EDGE] if prefix.ending is None else prefix.ending

    def _continued(self, parent: _Prefix, token: int) -> _Prefix:
        ending = None
        if token == self._space:
            if self._idle_space(parent):
                return _Prefix(parent.scores, parent.state, parent.is_start, parent.ending)
            # A text that ends in a space ends before it: the space's probability is given back.
            ending = parent.scores[EDGE] - parent.scores[token]
        return self._read(parent.state, self._labels[token], False, ending)

    @staticmethod
    def _idle_space(prefix: _Prefix) -> bool:
        """Whether a space behind this is none of the text."""
        return prefix.is_start or prefix.ending is not None

    def _read(
        self, before: np.ndarray, label: int, is_start: bool, ending: float | None
    ) -> _Prefix:
        log_probs, states = self.model.step(before, [label])
        return _Prefix(log_probs[0, self._labels].tolist(), states, is_start, ending)
