"""AN4 as a TensorFlow dataset: after ``import speechrnn.corpora.tfds_an4``,
``tfds.load("an4")`` fetches, checks and prepares it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from speechrnn.corpora import an4, tfds_export
from speechrnn.corpora.utterance import Utterance
from speechrnn.errors import MissingExtra

try:
    import tensorflow_datasets as tfds
except ImportError as error:
    raise MissingExtra("a TensorFlow dataset", "tfds") from error


class An4(tfds.core.GeneratorBasedBuilder):
    """CMU AN4: its official splits, train 948 and test 130 utterances; or, as ``an4/with_dev``,
    with nine of the training speakers set apart as dev: 831, 117 and 130.

    The archive's recordings are counted, and each must be as long as its SPHERE header says. Its
    publisher gives no checksum; ``tfds.download.DownloadConfig(register_checksums=True)`` notes
    that of the first download, which later ones then must have.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "The archive of 16 kHz SPHERE files."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="official", description="train 948, test 130"),
        tfds.core.BuilderConfig(name="with_dev", description="train 831, dev 117, test 130"),
    ]

    def _info(self) -> Any:
        return self.dataset_info_from_configs(
            description="Spelled names, addresses, digits and dates, recorded at Carnegie Mellon "
            "University in 1991: 16 kHz, close-talking microphone. Free for any use.",
            features=tfds_export.features(16_000),
            supervised_keys=("audio", "text"),
            homepage="http://www.speech.cs.cmu.edu/databases/an4/",
            citation="A. Acero: Acoustical and Environmental Robustness in Automatic Speech "
            "Recognition. Kluwer, 1993.",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        folder = Path(dl_manager.download_and_extract(an4.URL))
        found: dict[str, list[Utterance]] = {}
        for utterance in an4.utterances(folder / "an4"):
            official = "train" if utterance.split == "dev" else utterance.split
            split = official if self.builder_config.name == "official" else utterance.split
            found.setdefault(split, []).append(utterance)
        return {split: self._generate_examples(mine) for split, mine in found.items()}

    def _generate_examples(
        self, utterances: list[Utterance]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        return tfds_export.examples(utterances, 16_000)
