"""The C program hears what Python hears, and refuses what it cannot use without a crash."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import struct
import subprocess
import wave
from pathlib import Path

import ai_edge_litert
import numpy as np
import pytest
import soundfile
from ai_edge_litert.interpreter import Interpreter
from conftest import RATE, REPOSITORY, whistle
from packaging.version import Version

from speechrnn import audio
from speechrnn.corpora import manifest
from speechrnn.runtime import container, default_model
from speechrnn.text import Alphabet

SOURCES = REPOSITORY / "pipelines/edge/c"
LIBRARY = Path(ai_edge_litert.__file__).with_name("libLiteRt.so")
SANITISERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
LITERT = importlib.metadata.version("ai-edge-litert")
DATA = os.environ.get("SPEECHRNN_DATA")

pytestmark = [
    pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc"),
    pytest.mark.skipif(not shutil.which("make"), reason="no make"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="this ai-edge-litert has no libLiteRt.so"),
    pytest.mark.skipif(
        Version(LITERT) < Version("2.2"), reason=f"LiteRT {LITERT} has another C interface"
    ),
]


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """The program, with sanitisers where the compiler has them."""
    folder = tmp_path_factory.mktemp("edge")
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }")
    command = ["gcc", *SANITISERS.split(), str(probe), "-o", str(folder / "probe")]
    sanitised = (
        subprocess.run(command, capture_output=True).returncode == 0
        and subprocess.run([folder / "probe"], capture_output=True).returncode == 0
    )
    flags = "-O2 -Wall -Wextra -Wconversion -Wshadow -Werror " + (SANITISERS if sanitised else "")
    out = folder / "transcribe"
    subprocess.run(
        ["make", "-s", "-C", SOURCES, f"LITERT={LIBRARY}", f"CFLAGS={flags}", f"OUT={out}"],
        check=True,
    )
    return out


@pytest.fixture
def transcribe(program):
    """transcribe(model, recording, ...) -> (exit code, stdout, stderr)."""

    def call(*arguments):
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # leaks want ptrace
        done = subprocess.run(
            [program, *map(str, arguments)], capture_output=True, timeout=60, env=environment
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")

    return call


@pytest.fixture(scope="module")
def shipped():
    return Path(default_model())


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "whistles.wav"
    soundfile.write(path, whistle("ab cd abba", 3), RATE, subtype="PCM_16")
    return path


def heard(model, waveform):
    """(tokens, frames, text) by the Python interpreter on the bare file."""
    loaded = container.read(model)
    run = Interpreter(model_content=loaded.model_bytes).get_signature_runner("transcribe")
    answer = run(waveform=waveform)
    tokens, frames = answer["tokens"].tolist(), answer["frames"].tolist()
    return tokens, frames, Alphabet(loaded.spec.alphabet).decode(tokens)


def sealed(flatbuffer):
    content = flatbuffer + container.TRAILER_MAGIC
    return content + hashlib.sha256(content).digest()


def described_anew(model, change, ensure_ascii=True):
    """The file with a changed description and no card, as JSON of the same length."""
    loaded = container.read(model)
    old = container.describe(loaded.spec, loaded.card)
    assert loaded.model_bytes.count(old) == 1
    data = {**json.loads(old), "card": {}}
    change(data)
    new = json.dumps(data, ensure_ascii=ensure_ascii).encode().ljust(len(old))
    assert len(new) == len(old)
    return sealed(loaded.model_bytes.replace(old, new))


def set_in(*keys, value):
    def change(data):
        *path, last = keys
        for key in path:
            data = data[key]
        data[last] = value

    return change


def test_text_and_tokens_are_those_of_the_python_interpreter(transcribe, shipped, recording):
    tokens, frames, text = heard(shipped, audio.load(recording))
    assert text, "the model hears nothing in the whistles: another recording is needed"
    assert transcribe(shipped, recording)[:2] == (0, text + "\n")
    symbols = container.read(shipped).spec.alphabet.symbols
    lines = [f"{f}\t{symbols[t - 1]}\n" for f, t in zip(frames, tokens, strict=True)]
    assert transcribe(shipped, recording, "--tokens")[:2] == (0, "".join(lines))


@pytest.mark.skipif(
    not (DATA and (Path(DATA) / "an4/manifest.tsv").exists()),
    reason="SPEECHRNN_DATA names no folder with an4/",
)
def test_people_are_heard_as_in_python(transcribe, shipped, tmp_path):
    dev = [u for u in manifest.read(Path(DATA) / "an4/manifest.tsv") if u.split == "dev"]
    for utterance in dev[::30]:
        waveform = audio.load(utterance.path)
        path = tmp_path / "utterance.wav"
        soundfile.write(path, waveform, RATE, subtype="PCM_16")  # 16-bit FLAC: nothing is lost
        assert transcribe(shipped, path)[:2] == (0, heard(shipped, waveform)[2] + "\n")


# As many symbols as the shipped model has.
STRANGE = [" ", '"', "\\", "/", "\b", "é", "ש", "क", "e\u0301", "\ud7ff", "\uffff", "😀"]
STRANGE += ["\U0010ffff", "ch", "a b", " x", "y ", *map(chr, range(0x4E00, 0x4E0A))]


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_symbols_of_any_script_with_and_without_escapes(
    transcribe, shipped, recording, tmp_path, ensure_ascii
):
    waveform, path = audio.load(recording), tmp_path / "strange.tflite"
    heard_labels = sorted(set(heard(shipped, waveform)[0]))
    others = [label for label in range(1, len(STRANGE) + 1) if label not in heard_labels]
    shown = set()
    for start in range(0, len(STRANGE), len(heard_labels)):  # until each has been a heard one's
        names = dict(zip(heard_labels + others, STRANGE[start:] + STRANGE[:start], strict=True))
        symbols = [names[label] for label in sorted(names)]
        change = set_in("spec", "alphabet", "symbols", value=symbols)
        path.write_bytes(described_anew(shipped, change, ensure_ascii))
        assert transcribe(path, recording)[:2] == (0, heard(path, waveform)[2] + "\n")
        shown.update(names[label] for label in heard_labels)
    assert shown == set(STRANGE)


def test_a_truncated_model_is_refused(transcribe, shipped, recording, tmp_path):
    content, path = shipped.read_bytes(), tmp_path / "cut.tflite"
    lengths = [0, 1, 7, 8, 55, 56, *np.geomspace(60, len(content) - 1, 9).astype(int)]
    for length in lengths:
        path.write_bytes(content[:length])
        code, out, err = transcribe(path, recording)
        assert (code, out) == (4, ""), f"{length} bytes: {err}"


def test_a_flipped_bit_is_refused(transcribe, shipped, recording, tmp_path):
    content, path = bytearray(shipped.read_bytes()), tmp_path / "flipped.tflite"
    rng = np.random.default_rng(1)
    for bit in [*rng.integers(len(content) * 8, size=12), *range(32, 64, 9), len(content) * 8 - 1]:
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        code, out, err = transcribe(path, recording)
        content[bit // 8] ^= 1 << bit % 8
        assert (code, out) == (4, ""), f"bit {bit}: {err}"


def test_what_is_foreign_is_refused_even_with_a_checksum(transcribe, shipped, recording, tmp_path):
    path = tmp_path / "foreign.tflite"
    noise = np.random.default_rng(2).bytes(5_000)
    half = container.read(shipped).model_bytes[: 16 * 100_000]
    for content in (noise, sealed(noise), sealed(b"\0\0\0\0TFL3"), sealed(b"\0\0\0\0TFL3" + noise)):
        path.write_bytes(content)
        assert transcribe(path, recording)[:2] == (4, "")
    path.write_bytes(sealed(half))
    assert transcribe(path, recording)[:2] == (4, "")


@pytest.mark.parametrize(
    "change",
    [
        set_in("format", value=2),
        set_in("spec", value=None),
        set_in("spec", "alphabet", value=[]),
        set_in("spec", "alphabet", "symbols", value=[]),
        set_in("spec", "alphabet", "symbols", value=["a", 1]),
        set_in("spec", "alphabet", "symbols", value=list("abc")),  # the model has 27
        set_in("spec", "features", "sample_rate", value="16000"),
        set_in("spec", "features", "sample_rate", value=1e300),
        set_in("spec", "features", "hop_ms", value=0),
        set_in("spec", "model", "time_stride", value=-3),
        set_in("spec", "alphabet", "rules", value=json.loads("[" * 200 + "]" * 200)),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    transcribe, shipped, recording, tmp_path, change
):
    path = tmp_path / "odd.tflite"
    path.write_bytes(described_anew(shipped, change))
    assert transcribe(path, recording)[:2] == (4, "")


def pcm(path, channels=1, width=2, rate=RATE, samples=RATE):
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(bytes(samples * channels * width))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (lambda path: pcm(path, rate=8000), "8000 Hz"),
        (lambda path: pcm(path, channels=2), "2 channels"),
        (lambda path: pcm(path, width=1), "8 bits"),
        (lambda path: soundfile.write(path, np.zeros(RATE), RATE, subtype="FLOAT"), "format 3"),
        (lambda path: path.write_bytes(b"no recording at all"), "not a WAV"),
        (lambda path: path.write_bytes(b""), "not a WAV"),
        (lambda path: path.write_bytes(b"RIFF\4\0\0\0WAVE"), "no samples"),
        (lambda path: None, "cannot be opened"),
    ],
)
def test_a_recording_of_another_kind_is_refused(transcribe, shipped, tmp_path, recipe, said):
    path = tmp_path / "bad.wav"
    recipe(path)
    code, out, err = transcribe(shipped, path)
    assert (code, out) == (3, "")
    assert said in err


def test_a_truncated_recording_is_refused(transcribe, shipped, recording):
    content = recording.read_bytes()
    for length in (11, 12, 19, 20, 36, 43, 44 + 999, len(content) - 1):
        recording.write_bytes(content[:length])
        code, out, err = transcribe(shipped, recording)
        assert (code, out) == (3, ""), f"{length} bytes: {err}"


def test_other_chunks_and_unknown_lengths_change_nothing(transcribe, shipped, recording):
    expected = transcribe(shipped, recording)[:2]
    content = recording.read_bytes()
    odd = b"LIST" + struct.pack("<I", 5) + b"odd!!\0"  # padded to an even size
    at = content.index(b"data")
    streamed = content[:at] + odd + b"data" + struct.pack("<I", 0xFFFFFFFF) + content[at + 8 :]
    recording.write_bytes(streamed)
    assert transcribe(shipped, recording)[:2] == expected
    soundfile.write(recording, audio.load(recording), RATE, subtype="PCM_16", format="WAVEX")
    assert transcribe(shipped, recording)[:2] == expected


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_less_than_a_window_is_no_text(transcribe, shipped, tmp_path, samples):
    path = tmp_path / "short.wav"
    pcm(path, samples=samples)
    # A data chunk that says 0 means: up to the end, which is here.
    assert transcribe(shipped, path)[:2] == (0, "\n")


@pytest.mark.parametrize("samples", [400, 401, 559, 560, 880, 16_123])
def test_any_length_gives_the_tokens_of_the_python_interpreter(
    transcribe, shipped, tmp_path, samples
):
    waveform = np.random.default_rng(samples).normal(scale=0.1, size=samples)
    path = tmp_path / "noise.wav"
    soundfile.write(path, waveform, RATE, subtype="PCM_16")
    expected = heard(shipped, audio.load(path))[2]
    assert transcribe(shipped, path)[:2] == (0, expected + "\n")


@pytest.mark.parametrize("arguments", [(), ("one",), ("one", "two", "three"), ("a", "b", "--what")])
def test_a_wrong_call_is_a_matter_of_usage(transcribe, arguments):
    code, out, err = transcribe(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage:")


def test_a_missing_model_is_a_bad_model(transcribe, recording, tmp_path):
    assert transcribe(tmp_path / "none.tflite", recording)[0] == 4
