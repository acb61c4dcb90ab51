"""Where utterances come from: any corpus that can be named -> its utterances."""

from __future__ import annotations

import os

from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance


def read(source: str | os.PathLike[str], dev_fraction: float = 0.1) -> list[Utterance]:
    """A corpus as ``data.manifest`` names it -> its utterances in order, each with its split.

    Recordings are not decoded here; ``recordings`` does that, of any utterance, in any process.

    Raises:
        ManifestError: there is no such corpus, or it cannot be read.
    """
    return manifest.read(source, dev_fraction)
