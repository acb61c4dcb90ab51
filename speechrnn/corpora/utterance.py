"""An utterance: one recording, wherever it lies, and what is said in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Form = Literal["numbers", "raw", "zlib", "file"]  # how a TensorFlow dataset stores audio


@dataclass(frozen=True)
class Member:
    """A recording inside a tar archive: ``size`` bytes from ``offset`` on, stored as they are."""

    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f":{self.name}"


@dataclass(frozen=True)
class Stretch:
    """A part of a recording, in seconds; it ends with the recording where ``end_s`` is None."""

    start_s: float
    end_s: float | None

    def __str__(self) -> str:
        end = "its end" if self.end_s is None else f"{self.end_s:g} s"
        return f" from {self.start_s:g} s to {end}"


@dataclass(frozen=True)
class Example:
    """A recording inside a prepared TensorFlow dataset: an example of a split.

    ``size`` bytes from ``offset`` on, a ``tf.train.Example``: any process reads one at once."""

    split: str
    position: int
    offset: int  # of the record in the file, past the 12 bytes with which TFRecord opens it
    size: int
    feature: str  # the one that holds the audio, stored as ``form`` says
    form: Form
    dtype: str  # NumPy's name, of all but files
    channels: int
    sample_rate: int  # Hz

    def __str__(self) -> str:
        return f" {self.split}[{self.position}]"


@dataclass(frozen=True)
class Utterance:
    """One recording and what is said in it. ``line`` is where its manifest lists it, from 1.

    ``columns`` are the manifest's other fields that are not empty, by name; they describe, and
    change nothing of what is prepared or learned. ``within`` says where in ``path`` the recording
    is, which ``recordings`` reads; None: it is the whole file.
    """

    utterance_id: str
    path: Path
    text: str
    split: str
    speaker: str = ""
    duration_s: float | None = None
    line: int = 0
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    within: Member | Stretch | Example | None = None

    @property
    def where(self) -> str:
        """The recording's place, for messages."""
        return f"{self.path}{self.within or ''}"
