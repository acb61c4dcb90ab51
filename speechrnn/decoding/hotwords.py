"""Words and phrases that a beam search is to prefer.

The boost of a phrase is granted bit by bit while its tokens come, so that it does not fall out of
the beam before it is complete, and taken back where it breaks off. What is granted so far depends
on the last tokens only: the phrases form an automaton (Aho and Corasick, CACM 1975).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from speechrnn.errors import MissingExtra

try:
    from flashlight.lib.text import decoder as fl
except ImportError as error:
    raise MissingExtra("beam search", "decode") from error

START = 0  # the automaton's state before any token


@dataclass
class _Node:
    """The tokens of a phrase up to here."""

    children: dict[int, int] = field(default_factory=dict)
    fallback: int = START  # of the longest proper end of them that begins a phrase too
    earned: float = 0.0  # nats of phrases that end here
    granted: float = 0.0  # nats on account of the phrase that goes on


class Hotwords:
    """Phrases as sequences of tokens, with the nats that each is worth.

    Invariant: over any sequence of tokens the boosts of ``step`` and at last that of ``finish``
    add up to the boosts of the phrases that occur in it, each as often as it does.
    """

    def __init__(self, phrases: Mapping[tuple[int, ...], float]):
        self._nodes = [_Node()]
        for tokens, boost in phrases.items():
            self._insert(tokens, boost)
        self._link()

    def step(self, state: int, token: int) -> tuple[int, float]:
        """A state and a token -> the next state, and what is granted or taken back."""
        before = self._nodes[state].granted
        while state != START and token not in self._nodes[state].children:
            state = self._nodes[state].fallback
        state = self._nodes[state].children.get(token, START)
        node = self._nodes[state]
        return state, node.earned + node.granted - before

    def finish(self, state: int) -> float:
        """What is taken back of a phrase that the end cuts off."""
        return -self._nodes[state].granted

    def _insert(self, tokens: Sequence[int], boost: float) -> None:
        at = START
        for number, token in enumerate(tokens, start=1):
            if token not in self._nodes[at].children:
                self._nodes[at].children[token] = len(self._nodes)
                self._nodes.append(_Node())
            at = self._nodes[at].children[token]
            if number < len(tokens):
                share = boost * number / len(tokens)
                # Of phrases that begin alike the most is granted that any of them gives.
                self._nodes[at].granted = max(self._nodes[at].granted, share, key=abs)
        self._nodes[at].earned += boost

    def _link(self) -> None:
        """Fallbacks, breadth first, and with each the phrases that end there."""
        waiting = deque(self._nodes[START].children.values())
        while waiting:
            node = self._nodes[waiting.popleft()]
            for token, child in node.children.items():
                at = node.fallback
                while at != START and token not in self._nodes[at].children:
                    at = self._nodes[at].fallback
                self._nodes[child].fallback = self._nodes[at].children.get(token, START)
                waiting.append(child)
            suffix = self._nodes[node.fallback]
            node.earned += suffix.earned
            if not node.granted:
                node.granted = suffix.granted


class HotwordLM(fl.LM):
    """A language model and the boosts of hotwords, as one: its scores are nats.

    Args:
        lm: over the same tokens as the hotwords.
        weight: of its scores.
        separator: the token on either side of a hotword of characters; None where tokens are words.
    """

    def __init__(self, lm: Any, weight: float, hotwords: Hotwords, separator: int | None):
        super().__init__()
        self._lm, self._weight = lm, weight
        self._hotwords, self._separator = hotwords, separator
        self._advance = 0.0
        # The keys stay alive here, so that the decoder's states keep their identity.
        self._states: dict[Any, tuple[Any, int]] = {}
        self._scores: dict[tuple[Any, int], tuple[Any, float]] = {}

    def reset(self) -> None:
        """Forget the states of the recording before."""
        self._states.clear()
        self._scores.clear()
        if hasattr(self._lm, "reset"):
            self._lm.reset()

    def start(self, start_with_nothing: bool) -> Any:
        state = fl.LMState()
        node = START
        if self._separator is not None:  # what is granted for it is settled in ``finish``
            node, self._advance = self._hotwords.step(node, self._separator)
        self._states[state] = self._lm.start(start_with_nothing), node
        return state

    def score(self, state: Any, token: int) -> tuple[Any, float]:
        found = self._scores.get((state, token))
        if found is None:
            inner, node = self._states[state]
            inner, score = self._lm.score(inner, token)
            node, boost = self._hotwords.step(node, token)
            following = state.child(token)
            self._states[following] = inner, node
            found = self._scores[state, token] = following, self._weight * score + boost
        return found

    def finish(self, state: Any) -> tuple[Any, float]:
        inner, node = self._states[state]
        inner, score = self._lm.finish(inner)
        boost = self._advance
        if self._separator is not None:  # the end of the text ends its last word too
            node, last = self._hotwords.step(node, self._separator)
            boost += last
        following = state.child(-1)
        self._states[following] = inner, node
        return following, self._weight * score + boost + self._hotwords.finish(node)
