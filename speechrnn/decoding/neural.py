"""A trained character language model, in NumPy: the probability of a text, or of what follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn import arrays
from speechrnn.decoding import cells
from speechrnn.errors import ModelError
from speechrnn.files import LANGUAGE_MODEL, MODEL, read_run
from speechrnn.language import EDGE, CharacterLMSpec
from speechrnn.text import Alphabet, normalise

LAYER_NORM_EPSILON = 1e-3  # Keras's
ROWS = 256  # texts that ``scores`` reads side by side


class CharacterLM:
    """P(text) = product of P(symbol | symbols before it), and of P(end | text) at last.

    Labels are those of ``CharacterLMSpec``: 0 is the edge, i + 1 the alphabet's symbol i. The
    probabilities are those of the Keras model, up to the order of float32 sums.

    Args:
        spec: the description.
        weights: the Keras model's, in its order.
        card: where the model comes from and how good it is.

    Raises:
        ModelError: the weights are of another network.
    """

    def __init__(self, spec: CharacterLMSpec, weights: Sequence[np.ndarray], card: dict[str, Any]):
        self.spec, self.card, self.alphabet = spec, card, Alphabet(spec.alphabet)
        model = spec.model.stack
        left = list(weights)
        try:
            embedding = left.pop(0)
            count = cells.weights_of(model)
            self._cells = []
            for layer in range(model.layers):
                self._cells.append(cells.make(model, layer, left[:count]))
                del left[:count]
            self._norms = [
                (left.pop(0), left.pop(0)) for _ in range(model.layers * model.layer_norm)
            ]
            self._logits, self._bias = left
            # The first layer's input is one of a few: what it makes of each is known beforehand.
            self._entry = self._cells[0].project(embedding)
            self.step(self.start(), [EDGE])
        except (ValueError, IndexError, TypeError) as error:
            raise ModelError(
                f"the language model's description is of another network than its weights "
                f"({error}); train it again"
            ) from error

    @staticmethod
    def load(folder: str | Path) -> CharacterLM:
        """The best model of the run directory of a language model.

        Raises:
            ModelError: no model there, a damaged one, or a recogniser.
        """
        folder = Path(folder)
        description, data = read_run(folder)
        if description["kind"] != LANGUAGE_MODEL:
            raise ModelError(
                f"{folder} holds a {description['kind']}, and a language model is needed; "
                "train one with configs/char_lm.yaml"
            )
        found = arrays.unpack(data, folder)
        weights = [found[name] for name in sorted(found)]
        spec = CharacterLMSpec.from_dict(description["spec"])
        try:
            return CharacterLM(spec, weights, description["card"])
        except ModelError as error:
            raise ModelError(f"{folder / MODEL}: {error}") from error

    def start(self) -> np.ndarray:
        """The state before anything is read, (1, size) float32: ``step`` it with the edge."""
        return np.zeros((1, sum(cell.state_size for cell in self._cells)), np.float32)

    def step(self, states: np.ndarray, labels: Sequence[int] | np.ndarray) -> tuple:
        """States (n, size) of n hypotheses and the label that each reads (n,) -> log_probs
        (n, symbols + 1) of what follows, natural logarithms, and the states (n, size) behind it.

        A row gives what it gives alone, up to the order of float32 sums.
        """
        after, used, x = [], 0, None
        for i, cell in enumerate(self._cells):
            state = states[:, used : used + cell.state_size]
            used += cell.state_size
            entering = self._entry[labels] if x is None else cell.project(x)
            x, state = cell.step(entering, state)
            after.append(state)
            if self._norms:
                x = _layer_norm(x, *self._norms[i])
            if isinstance(cell, cells.DepthGated) and i < len(self._cells) - 1:
                x = np.concatenate([x, state[:, cell.units :]], axis=1)
        return _log_softmax(x @ self._logits + self._bias), np.concatenate(after, axis=1)

    def score(self, text: str) -> float:
        """ln P(text and its end); see ``scores``."""
        return float(self.scores([text])[0])

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """ln P of each text and its end, (texts,) float64, at most 0. Texts are normalised by the
        model's own rules; the empty one has a probability like any other.

        Raises:
            TranscriptError: a text has a character that the model does not know.
        """
        labels = [self._encode(text) for text in texts]
        found = np.zeros(len(texts))
        # Of similar length side by side: none waits long for the longest.
        order = np.argsort([-len(row) for row in labels], kind="stable")
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            found[rows] = self._scored([labels[row] for row in rows])
        return found

    def bits_per_character(self, texts: Sequence[str]) -> float:
        """Mean of -log2 P over the texts' characters, each text's end being one of them.

        Raises:
            TranscriptError: as ``scores``.
        """
        characters = sum(len(normalise(text, self.spec.alphabet.rules)) + 1 for text in texts)
        return -float(self.scores(texts).sum()) / math.log(2) / characters

    def _encode(self, text: str) -> list[int]:
        return self.alphabet.encode(text) if normalise(text, self.spec.alphabet.rules) else []

    def _scored(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Labels of texts, the longest first. What texts have in common at their beginning, as the
        n best of a search do, is read once."""
        lengths = np.array([len(row) for row in rows])
        read = np.full((len(rows), lengths.max(initial=0) + 2), EDGE)
        for padded, row in zip(read, rows, strict=True):
            padded[1 : 1 + len(row)] = row
        size = self.spec.alphabet.size
        total, states = np.zeros(len(rows)), self.start()
        prefix = np.zeros(len(rows), int)  # of each text: the row of ``states`` that it has come to
        for t in range(read.shape[1] - 1):
            n = int((lengths >= t).sum())  # those that have not ended
            found, prefix = np.unique(prefix[:n] * size + read[:n, t], return_inverse=True)
            log_probs, states = self.step(states[found // size], found % size)
            total[:n] += log_probs[prefix, read[:n, t + 1]]
        return total


def _layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    variance = np.mean(centred * centred, axis=1, keepdims=True)
    return centred / np.sqrt(variance + LAYER_NORM_EPSILON) * gamma + beta


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))
