"""The device side: a trained model in any of its forms -> text.

``Recognizer`` runs a ``.tflite`` file without TensorFlow; ``open_model`` takes all three forms.
"""

from __future__ import annotations

from pathlib import Path

from speechrnn.errors import ModelError
from speechrnn.runtime.recognizer import BaseRecognizer, Recognizer
from speechrnn.runtime.results import TimedWord, Transcript
from speechrnn.runtime.streaming import Endpoint, Heard, Stream
from speechrnn.runtime.windows import Windows

__all__ = [
    "BaseRecognizer",
    "Endpoint",
    "Heard",
    "Recognizer",
    "Stream",
    "TimedWord",
    "Transcript",
    "Windows",
    "default_model",
    "open_model",
]

PRETRAINED = Path(__file__).parent.parent / "pretrained"


def open_model(path: str | Path, reject: bool = True) -> BaseRecognizer:
    """MODEL, as the commands take it -> a recogniser.

    A run directory, a SavedModel directory or a ``.tflite`` file; only the last works without
    TensorFlow.

    Args:
        reject: leave out what the model's card says is noise.

    Raises:
        ModelError: none of these, or a damaged one.
        MissingExtra: TensorFlow is needed and absent.
    """
    recogniser = _opened(Path(path))
    if not reject:
        recogniser.rejection = None
    return recogniser


def _opened(path: Path) -> BaseRecognizer:
    if path.is_dir():
        if (path / "model.json").is_file():
            from speechrnn.runtime.tensorflow import RunRecognizer

            return RunRecognizer(path)
        if (path / "saved_model.pb").is_file():
            from speechrnn.runtime.tensorflow import SavedModelRecognizer

            return SavedModelRecognizer(path)
        raise ModelError(
            f"{path} holds neither model.json nor saved_model.pb; a model is a run directory "
            "with a finished validation, a SavedModel directory or a .tflite file"
        )
    if not path.exists():
        raise ModelError(
            f"there is no model at {path}; give a run directory, a SavedModel directory or a "
            ".tflite file"
        )
    return Recognizer(path)


def default_model() -> Path:
    """The model shipped with the package.

    Raises:
        ModelError: this installation has none.
    """
    shipped = sorted(PRETRAINED.glob("*.tflite"))
    if len(shipped) != 1:
        raise ModelError(
            f"{len(shipped)} .tflite files in {PRETRAINED}, where one is shipped; name a model "
            "with --model, or install the package again"
        )
    return shipped[0]
