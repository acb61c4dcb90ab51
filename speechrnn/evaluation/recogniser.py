"""What judging needs of a recogniser, whichever form of a model it is."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from speechrnn.specs import RecogniserSpec
from speechrnn.text import Alphabet


class Recogniser(Protocol):
    """One that gives posteriors: a run, a SavedModel, a ``.tflite``."""

    @property
    def alphabet(self) -> Alphabet: ...

    @property
    def spec(self) -> RecogniserSpec: ...

    def log_probs(self, waveform: np.ndarray, /) -> np.ndarray: ...
