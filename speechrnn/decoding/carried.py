"""Decoder settings inside a model's card, with the files they name: one file for the device."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from speechrnn.decoding.settings import DecoderSettings
from speechrnn.errors import DataError, ModelError, UsageError

KEY = "decoder"  # of the card
_FILES = ("lm", "lexicon")
MOST_BYTES = 64 * 2**20  # compressed; a larger language model lies better beside the model


def pack(settings: DecoderSettings) -> dict[str, Any]:
    """Settings -> plain data for the card, files included.

    Raises:
        DataError: a file cannot be read.
        UsageError: there is a recurrent language model, or the files are too large.
    """
    recurrent = settings.neural_lm or settings.rescore_lm
    if recurrent is not None:
        raise UsageError(
            f"a model cannot carry the recurrent language model {recurrent}; give --decoder where "
            "the model is used"
        )
    files = {}
    for name in _FILES:
        path = getattr(settings, name)
        if path is not None:
            try:
                compressed = zlib.compress(path.read_bytes(), 9)
            except OSError as error:
                raise DataError(f"cannot read {path}: {error.strerror}") from error
            if len(compressed) > MOST_BYTES:
                raise UsageError(
                    f"{path} has {len(compressed) / 2**20:.0f} MB even when compressed; a model "
                    f"carries up to {MOST_BYTES >> 20}. Prune it with `speechrnn lm --prune`."
                )
            files[name] = base64.b85encode(compressed).decode()
    return {"settings": replace(settings, lm=None, lexicon=None).to_dict(), "files": files}


def unpack(data: Any, folder: str | Path, source: str) -> DecoderSettings:
    """The inverse of ``pack``: settings whose files lie in ``folder``.

    Raises:
        ModelError: not such data; ``source`` is named.
    """
    try:
        paths = {}
        for name, content in data["files"].items():
            if name not in _FILES:
                raise ValueError(f"it holds a file {name!r}")
            paths[name] = Path(folder) / name
            paths[name].write_bytes(zlib.decompress(base64.b85decode(content)))
        return replace(DecoderSettings.from_dict(data["settings"]), **paths)
    except (
        *(KeyError, TypeError, ValueError, AttributeError),
        *(zlib.error, DataError, UsageError),
    ) as error:
        raise ModelError(
            f"{source}: the decoder that the model carries is not one this version reads "
            f"({error!r}); export it again, or decode without it (--greedy)"
        ) from error


def summary(data: Any) -> Any:
    """What to show of it: the settings, and the files' sizes instead of the files."""
    try:
        sizes = {f"{name}_bytes": len(content) for name, content in data["files"].items()}
        return {**data["settings"], **sizes}
    except (KeyError, TypeError, AttributeError):
        return data
