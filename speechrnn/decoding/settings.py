"""How a beam search is run: a few numbers and the files it reads, as `speechrnn tune` writes them.

Standard library only, and no beam search: a device without the extra [decode] still reads what a
model carries.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from speechrnn.errors import DataError, UsageError
from speechrnn.files import write_atomically

MOST = 100_000  # hypotheses, or symbols: no search ends with more
FORMAT = 1  # of the file; a reader refuses others
_FILES = ("lm", "lexicon", "neural_lm", "rescore_lm")


@dataclass(frozen=True)
class DecoderSettings:
    """A beam search over posteriors, without a language model unless one is named.

    A hypothesis has the score ``ln P(symbols | audio) + lm_weight * ln P(text) + word_score *
    words``, and a boost for each hotword in it; ``word_score`` needs a lexicon.

    ``lm`` is an n-gram in ARPA or KenLM's binary form, of words or of characters. ``lexicon`` lists
    the words that may be heard, one a line; words of an ARPA of words are a lexicon by themselves.
    ``neural_lm`` is the run directory of a recurrent character language model, and takes the place
    of ``lm``. ``rescore_lm`` is another, which comes after the search: to the score of each
    hypothesis that is left it adds ``rescore_weight * ln P(text)``.
    """

    beam: int = 64  # hypotheses kept after a frame
    threshold: float = 25.0  # nats below the best at which one is dropped
    # Most probable symbols of a frame that are tried; 0: all, but 10 where hotwords or a recurrent
    # model look at each.
    symbols: int = 0
    lm: Path | None = None
    lm_weight: float = 0.5
    word_score: float = 0.0
    lexicon: Path | None = None
    neural_lm: Path | None = None
    rescore_lm: Path | None = None
    rescore_weight: float = 0.4
    hotwords: Mapping[str, float] = field(default_factory=dict)  # word or phrase -> nats

    def __post_init__(self) -> None:
        for name, low in (("beam", 1), ("symbols", 0)):
            value = getattr(self, name)
            _require(low <= value <= MOST, name, value, f"{low} to {MOST}")
        _require(self.threshold > 0, "threshold", self.threshold, "more than 0")
        for name in ("lm_weight", "word_score", "rescore_weight"):
            value = getattr(self, name)
            _require(math.isfinite(value), name, value, "a finite number")
        for phrase, boost in self.hotwords.items():
            _require(bool(phrase.split()), "hotword", repr(phrase), "a word or a phrase")
            _require(math.isfinite(boost), f"the boost of hotword {phrase!r}", boost, "finite")
        if self.lm is not None and self.neural_lm is not None:
            raise UsageError(
                f"there are two language models, {self.lm} and {self.neural_lm}; name one. The "
                "recurrent one can come after the search instead (rescore_lm)."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, paths as text; ``from_dict`` is the inverse."""
        data = dataclasses.asdict(self) | {"hotwords": dict(self.hotwords)}
        return {name: str(v) if isinstance(v, Path) else v for name, v in data.items()}

    @staticmethod
    def from_dict(data: Mapping[str, Any], folder: Path | None = None) -> DecoderSettings:
        """Build from plain data; relative paths are taken from ``folder``.

        Raises:
            DataError: a field is unknown or of another type.
            UsageError: a value is out of range.
        """
        try:
            values = dict(data)
            for name in _FILES:
                if values.get(name) is not None:
                    values[name] = (folder or Path()) / values[name]
            numbers = [values.get(name, 0) for name in ("beam", "symbols")]
            if any(isinstance(n, bool) or not isinstance(n, int) for n in numbers):
                raise TypeError("beam and symbols are whole numbers")
            return DecoderSettings(**values)
        except (TypeError, AttributeError) as error:
            raise DataError(
                f"these are not decoder settings that this version reads ({error}); write them "
                "with `speechrnn tune`"
            ) from error


# What a recogniser may be given: settings; "carried", those in its model's card, if it has any;
# None, the best label of each frame.
Decoder = DecoderSettings | Literal["carried"] | None


def load(path: str | Path) -> DecoderSettings:
    """The settings in a file of ``save``'s; its paths are relative to its folder.

    Raises:
        DataError: no such file, not JSON, of another format, an unknown field.
        UsageError: a value is out of range.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read the decoder settings {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); write it with `speechrnn tune`") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise DataError(
            f"{path} holds no decoder settings of format {FORMAT} (found {found!r}); write it with "
            "`speechrnn tune`"
        )
    try:
        return DecoderSettings.from_dict(data.get("settings", {}), path.parent)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def save(path: str | Path, settings: DecoderSettings, report: Mapping[str, Any]) -> None:
    """Write settings, and beside them what they gave (``report``), as JSON; atomically."""
    path = Path(path)
    data = settings.to_dict()
    for name in _FILES:
        if data[name] is not None:
            data[name] = Path(os.path.relpath(data[name], path.resolve().parent)).as_posix()
    text = json.dumps({"format": FORMAT, "settings": data, "report": report}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (text + "\n").encode())


def _require(condition: bool, name: str, found: object, needed: str) -> None:
    if not condition:
        raise UsageError(f"{name} is {found}; it must be {needed}")
