"""What describes a character language model and travels with it. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from speechrnn.errors import ModelError
from speechrnn.specs import FORBID_UNKNOWN_KEYS, AlphabetSpec, ModelSpec, TextRules

EDGE = 0  # the label of a text's edge: read before its first symbol, written behind its last


@dataclass(frozen=True)
class LanguageModelSpec:
    """The network between a text's symbols and the probabilities of the next one."""

    __pydantic_config__ = FORBID_UNKNOWN_KEYS

    cell: Literal["simple_rnn", "lstm", "gru", "clockwork", "depth_gated"] = "gru"  # recurrent
    periods: tuple[int, ...] = (1, 2, 4, 8)  # symbols, of a clockwork cell's modules
    embedding: int = 64  # numbers that stand for a symbol
    units: int = 256  # of a layer
    layers: int = 1  # recurrent, one on the other
    dropout: float = 0.3  # behind the embedding and behind every recurrent layer
    layer_norm: bool = False  # behind every recurrent layer

    def __post_init__(self) -> None:
        if self.embedding < 1:
            raise ValueError(f"embedding is {self.embedding}; at least 1")
        _ = self.stack  # which checks all else

    @property
    def stack(self) -> ModelSpec:
        """The recurrent layers, as a recogniser's description has them."""
        return ModelSpec(
            cell=self.cell,
            periods=tuple(self.periods),
            units=self.units,
            layers=self.layers,
            bidirectional=False,
            dropout=self.dropout,
            layer_norm=self.layer_norm,
        )


@dataclass(frozen=True)
class CharacterLMSpec:
    """A character language model: label 0 is a text's edge, label i + 1 the alphabet's symbol i.

    These are the labels of a recogniser of the same alphabet, its blank being 0.
    """

    alphabet: AlphabetSpec
    model: LanguageModelSpec

    def labels_of(self, symbols: Sequence[str]) -> list[int]:
        """The labels here of another alphabet's symbols, as a recogniser writes them.

        Raises:
            ModelError: some of them are not in this alphabet.
        """
        own = {symbol: i + 1 for i, symbol in enumerate(self.alphabet.symbols)}
        unknown = [symbol for symbol in symbols if symbol not in own]
        if unknown:
            raise ModelError(
                f"the language model knows no {', '.join(map(repr, unknown))}, which the "
                f"recogniser writes; its alphabet is {''.join(self.alphabet.symbols)!r}. Train it "
                "on the recogniser's transcripts, or name the recogniser's alphabet in its recipe "
                "(data.alphabet)"
            )
        return [own[symbol] for symbol in symbols]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` is the inverse."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> CharacterLMSpec:
        """Build from plain data.

        Raises:
            ModelError: a field is missing, unknown or out of range.
        """
        try:
            alphabet, model = data["alphabet"], dict(data["model"])
            model["periods"] = tuple(model["periods"])
            return CharacterLMSpec(
                AlphabetSpec(tuple(alphabet["symbols"]), TextRules(**alphabet["rules"])),
                LanguageModelSpec(**model),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the language model's description is not one this version reads ({error!r}); "
                "train it again with this version"
            ) from error
