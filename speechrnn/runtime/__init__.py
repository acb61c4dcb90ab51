"""The device side: a trained model in any of its forms -> text.

``Recognizer`` runs a ``.tflite`` file without TensorFlow; ``open_model`` takes all three forms.
"""

from __future__ import annotations

from pathlib import Path

from speechrnn.decoding.settings import Decoder
from speechrnn.errors import ModelError
from speechrnn.runtime.recognizer import BaseRecognizer, Recognizer
from speechrnn.runtime.results import Aligned, TimedSymbol, TimedWord, Transcript
from speechrnn.runtime.streaming import Endpoint, Heard, Stream
from speechrnn.runtime.windows import Windows

__all__ = [
    "Aligned",
    "BaseRecognizer",
    "Endpoint",
    "Heard",
    "Recognizer",
    "Stream",
    "TimedSymbol",
    "TimedWord",
    "Transcript",
    "Windows",
    "default_model",
    "latest_version",
    "open_model",
    "saved_model_folder",
]

PRETRAINED = Path(__file__).parent.parent / "pretrained"


def open_model(
    path: str | Path, reject: bool = True, decoder: Decoder = "carried"
) -> BaseRecognizer:
    """MODEL, as the commands take it -> a recogniser.

    A run directory, a SavedModel directory or a ``.tflite`` file; only the last works without
    TensorFlow.

    Args:
        reject: leave out what the model's card says is noise.
        decoder: settings of a beam search; "carried": those in the model, where it has any; None:
            the best label of each frame.

    Raises:
        ModelError: none of these, or a damaged one.
        MissingExtra: TensorFlow is needed and absent, or flashlight-text.
    """
    recogniser = _opened(Path(path))
    if not reject:
        recogniser.rejection = None
    recogniser.decode_with(decoder)
    return recogniser


def _opened(path: Path) -> BaseRecognizer:
    if path.is_dir():
        if (path / "model.json").is_file():
            from speechrnn.runtime.tensorflow import RunRecognizer

            return RunRecognizer(path)
        folder = saved_model_folder(path)
        if folder is not None:
            from speechrnn.runtime.tensorflow import SavedModelRecognizer

            return SavedModelRecognizer(folder)
        raise ModelError(
            f"{path} holds neither model.json nor saved_model.pb, nor a numbered version with one; "
            "a model is a run directory with a finished validation, a SavedModel directory or a "
            ".tflite file"
        )
    if not path.exists():
        raise ModelError(
            f"there is no model at {path}; give a run directory, a SavedModel directory or a "
            ".tflite file"
        )
    return Recognizer(path, decoder=None)


def saved_model_folder(path: Path) -> Path | None:
    """The SavedModel that ``path`` is, or the highest of the numbered versions that it holds."""
    if (path / "saved_model.pb").is_file():
        return path
    version = latest_version(path)
    return None if version is None else path / str(version)


def latest_version(path: Path) -> int | None:
    """The highest number among the folders with a SavedModel in ``path``."""
    if not path.is_dir():
        return None
    versions = (p.name for p in path.iterdir() if (p / "saved_model.pb").is_file())
    return max((int(name) for name in versions if name.isdecimal()), default=None)


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
