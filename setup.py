"""Packaging: the base install is the device side; the extras add training and the rest."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "speechrnn/__init__.py").read_text())[1]
README = ROOT / "README.md"

# What a device needs to turn a recording into text: under 200 MB, no TensorFlow.
DEVICE = [
    "numpy>=2.0,<3",
    "soundfile>=0.13,<1",
    "soxr>=0.5,<2",
    "ai-edge-litert>=2.1,<3",
    "flatbuffers>=25.9,<26",
    "typer>=0.15,<1",
    "rich>=13.9,<16",
]

EXTRAS = {
    # TensorFlow is pinned to a minor version: its TFLite converter is announced for removal.
    "train": [
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "tensorboard>=2.20,<3",
        "librosa>=0.11,<0.12",
        "scipy>=1.13,<2",
        "jiwer>=4.0,<5",
        "pydantic>=2.10,<3",
        "pyyaml>=6.0,<7",
        "threadpoolctl>=3.5,<4",  # NumPy's threads, while preparing
        "google-crc32c>=1.7,<2",  # TFRecord's checksum, in processes without TensorFlow
        "matplotlib>=3.9,<4",  # plots of the report, pictures of features (librosa.display)
    ],
    "decode": ["flashlight-text>=0.0.7,<0.1"],  # beam search; KenLM is inside
    "tune": ["flashlight-text>=0.0.7,<0.1", "optuna>=4.6,<6", "jiwer>=4.0,<5"],
    "beam": ["apache-beam>=2.77,<3"],  # prepare on a cluster
    "tfds": [
        "tensorflow-datasets>=4.9.10,<5",
        "importlib_resources>=6",  # tensorflow-datasets imports it and does not declare it
    ],
    "synth": ["espeakng-loader>=0.2.4,<0.3"],  # carries espeak-ng, which is GPL-3.0
    "microphone": ["sounddevice>=0.5,<1"],
    "notebooks": ["nbclient>=0.10,<1", "ipykernel>=6.29,<8"],
    "docs": ["sphinx>=9,<10", "myst-parser>=5,<6", "furo>=2025.9"],
    "test": [
        "pytest>=8.3,<10",
        "pytest-timeout>=2.3,<3",
        "pytest-xdist>=3.6,<4",  # a process for each core
        "hypothesis>=6.100,<7",
        "ruff>=0.15,<0.18",
        "mypy>=1.15,<3",
        "dill>=0.3.8,<0.5",  # tfds.testing imports it and does not declare it
        "types-PyYAML>=6.0,<7",
        "kaldialign>=0.12,<0.13",  # another bootstrap of error rates, to compare with
        "playwright>=1.50,<2",  # drives the system's Chromium; brings none of its own
    ],
}
# What `make` installs. Not the microphone: its library wants PortAudio on the system.
EXTRAS["dev"] = sorted(
    requirement for name, extra in EXTRAS.items() if name != "microphone" for requirement in extra
)

setup(
    name="speechrnn",
    version=VERSION,
    description="Train a recurrent CTC speech recogniser and ship it to a device as one file",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["speechrnn", "speechrnn.*"]),
    package_data={
        "speechrnn": [
            *("py.typed", "pretrained/*.tflite", "pretrained/*.md", "pretrained/LICENSE*"),
            *("evaluation/page.css", "evaluation/page.js"),
        ]
    },
    python_requires=">=3.11,<3.14",
    install_requires=DEVICE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["speechrnn = speechrnn.__main__:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
