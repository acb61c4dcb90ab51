"""The device side as it is installed: small, without TensorFlow, and able to transcribe.

`make test-device` runs this file where nothing but the base install exists.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement

import speechrnn

PRETRAINED = sorted((Path(speechrnn.__file__).parent / "pretrained").glob("*.tflite"))
TRAINING_ONLY = {"tensorflow", "keras", "librosa", "scipy", "jiwer"}
NEGLIGIBLE = {"pip", "setuptools"}  # the environment's own

needs_model = pytest.mark.skipif(not PRETRAINED, reason="no model in speechrnn/pretrained")


def base_install():
    """Names of the distributions that `pip install speechrnn` brings."""
    found, waiting = set(), ["speechrnn"]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        requirements = map(Requirement, importlib.metadata.requires(name) or [])
        waiting += [
            r.name for r in requirements if not r.marker or r.marker.evaluate({"extra": ""})
        ]
    return found


def test_the_base_install_has_nothing_of_the_training_side():
    installed = base_install()
    assert "ai-edge-litert" in installed
    assert not installed & TRAINING_ONLY


def test_the_base_install_stays_below_200_megabytes():
    files = [
        Path(file.locate())
        for name in base_install() - {"speechrnn"}
        for file in importlib.metadata.files(name) or []
    ]
    size = sum(path.stat().st_size for path in files if path.exists())
    assert size < 200e6, f"{size / 1e6:.0f} MB"


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def recording(tmp_path):
    """A second of quiet noise: what is heard in it does not matter."""
    path = tmp_path / "noise.wav"
    noise = np.random.default_rng(0).normal(scale=0.05, size=16000)
    soundfile.write(path, noise.astype(np.float32), 16000)
    return path


@needs_model
def test_the_runtime_transcribes_with_no_training_package_loaded(recording):
    script = (
        "import json, sys\n"
        "from speechrnn.runtime import Recognizer\n"
        "text = Recognizer(sys.argv[1]).transcribe(sys.argv[2]).text\n"
        "print(json.dumps([text, sorted(sys.modules)]))"
    )
    done = run(sys.executable, "-P", "-c", script, str(PRETRAINED[0]), str(recording))
    assert done.returncode == 0, done.stderr
    text, loaded = json.loads(done.stdout)
    assert isinstance(text, str)
    assert not TRAINING_ONLY & set(loaded)


@needs_model
def test_the_command_transcribes_with_the_shipped_model(recording):
    command = Path(sys.executable).with_name("speechrnn")
    done = run(str(command), "transcribe", str(recording), "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert Path(result["path"]) == recording
    assert isinstance(result["text"], str)


@pytest.mark.parametrize(
    ("module", "package"),
    [("speechrnn.evaluation.error_rates", "jiwer"), ("speechrnn.recipe", "yaml")],
)
def test_what_needs_the_training_side_names_its_extra(module, package):
    script = f"import sys; sys.modules[{package!r}] = None; import {module}"
    done = run(sys.executable, "-P", "-c", script)
    assert done.returncode != 0
    assert 'pip install "speechrnn[train]"' in done.stderr
