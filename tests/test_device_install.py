"""The device side as it is installed: small, without TensorFlow, and able to transcribe.

`make test-device` runs this file where nothing but the base install exists.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement

import speechrnn
from speechrnn.corpora import manifest

AN4 = Path(os.environ.get("SPEECHRNN_DATA", "")) / "an4" / "manifest.tsv"
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
    # The shipped model too. A checkout's own files are where no distribution lists them.
    files = {Path(f.locate()) for name in base_install() for f in importlib.metadata.files(name)}
    files |= set(Path(speechrnn.__file__).parent.rglob("*"))
    size = sum(path.stat().st_size for path in files if path.is_file())
    print(f"base install: {size / 1e6:.0f} MB")
    assert 50e6 < size < 200e6  # LiteRT alone has more than 50


def run(*command, **environment):
    given = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=given)


def answer(script, *arguments, **environment):
    """What a script prints as JSON, in a fresh process where nothing but the package is found."""
    done = run(sys.executable, "-P", "-c", script, *map(str, arguments), **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
    text, loaded = answer(script, PRETRAINED[0], recording)
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


@needs_model
@pytest.mark.skipif(not AN4.exists(), reason="SPEECHRNN_DATA names no folder with AN4")
def test_the_command_hears_people_with_the_shipped_model():
    """Ten recordings of speakers that it was not trained on; over all of dev its WER is a tenth or
    less, so that a third of these few words is far off."""
    clips = [each for each in manifest.read(AN4) if each.split == "dev"][::11][:10]
    command = Path(sys.executable).with_name("speechrnn")
    done = run(str(command), "transcribe", *(str(each.path) for each in clips), "--json")
    assert done.returncode == 0, done.stderr
    heard = [result["text"].split() for result in json.loads(done.stdout)]
    said = [each.text.lower().split() for each in clips]
    right = sum(
        block.size
        for a, b in zip(said, heard, strict=True)
        for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    )
    assert right > 2 / 3 * sum(map(len, said))


def test_the_wheel_has_all_that_is_no_module():
    found = importlib.metadata.distribution("speechrnn")
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    # A checkout's own .egg-info lists its sources and has no RECORD of what was installed.
    if found.read_text("RECORD") is None or origin.get("dir_info", {}).get("editable"):
        pytest.skip("this is no installed wheel; `make test-device` installs one")
    files = {str(file) for file in found.files or ()}
    assert {
        *("speechrnn/py.typed", "speechrnn/evaluation/page.css", "speechrnn/evaluation/page.js"),
        *("speechrnn/pretrained/README.md", "speechrnn/pretrained/LICENSE-AN4"),
    } <= files
    assert len([file for file in files if file.endswith(".tflite")]) == 1
    assert not [file for file in files if file.startswith(("tests/", "docs/", "pipelines/"))]
    described = found.metadata
    assert described["Description-Content-Type"] == "text/markdown"
    assert described.get_payload().startswith("# speechrnn")


@pytest.mark.parametrize(
    ("module", "package"),
    [("speechrnn.evaluation.error_rates", "jiwer"), ("speechrnn.recipe", "yaml")],
)
def test_what_needs_the_training_side_names_its_extra(module, package):
    script = f"import sys; sys.modules[{package!r}] = None; import {module}"
    done = run(sys.executable, "-P", "-c", script)
    assert done.returncode != 0
    assert 'pip install "speechrnn[train]"' in done.stderr


# Processor time, which another process's load changes less than the clock's.
IMPORT = """
import time
start = time.process_time()
import {}
print(time.process_time() - start)
"""


def test_importing_the_runtime_adds_little_to_importing_numpy_and_litert():
    best = {"numpy, ai_edge_litert.interpreter": 9.0, "speechrnn.runtime": 9.0}
    for _ in range(5):
        for name in best:
            best[name] = min(best[name], answer(IMPORT.format(name)))
    print({name: f"{seconds:.3f} s" for name, seconds in best.items()})
    reference, ours = best.values()
    # Measured: 1.5, for audio files, resampling and the file format. TensorFlow would be 20.
    assert ours < 2.5 * reference


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
from speechrnn.runtime import Recognizer

def held(name):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"^{name}:\\s+(\\d+) kB$", status, re.M)[1])

def noise(seconds):
    return np.random.default_rng(0).normal(0, 0.1, int(16000 * seconds)).astype(np.float32)

recogniser = Recognizer(sys.argv[1])
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@linux
@needs_model
def test_ten_seconds_of_audio_take_less_than_150_megabytes_of_memory():
    peak = answer(MEMORY + 'recogniser.transcribe(noise(10)); print(held("VmHWM"))', PRETRAINED[0])
    print(f"10 s of audio: {peak / 1e6:.0f} MB")
    assert 20e6 < peak < 150e6


MANY = """
import hashlib, json
clips = [noise(seconds) for seconds in np.random.default_rng(1).uniform(0.3, 1.9, 50)]

def heard(clip):
    found = recogniser.transcribe(clip)
    return found.text, hashlib.sha256(found.log_probs.tobytes()).hexdigest()

expected, other, rss = [heard(clip) for clip in clips], 0, []
for utterance in range(2000):
    other += heard(clips[utterance % 50]) != expected[utterance % 50]
    if utterance % 100 == 99:
        rss.append(held("VmRSS"))
print(json.dumps([other, rss]))
"""


@pytest.mark.long
@linux
@needs_model
def test_two_thousand_utterances_neither_grow_nor_differ():
    """Without glibc's habit of taking, once it has seen a large block freed, the next ones from its
    heap: at some utterance that adds a block of the largest, 2 MB, for good."""
    other, rss = answer(MEMORY + MANY, PRETRAINED[0], MALLOC_MMAP_THRESHOLD_="131072")
    print(f"after 200 utterances {rss[1] / 1e6:.2f} MB, after 2,000 {rss[-1] / 1e6:.2f} MB")
    assert other == 0
    assert max(rss) < 1.01 * rss[1]
