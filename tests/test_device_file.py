"""A damaged device file is refused: by the library every time, by the command with exit code 4."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from ai_edge_litert import schema_py_generated as schema
from conftest import REPOSITORY

from speechrnn.errors import ModelError
from speechrnn.runtime import Recognizer, container, default_model


@pytest.fixture(scope="module")
def whole():
    return default_model().read_bytes()


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the shipped model, to be damaged and mended."""
    path = tmp_path / "model.tflite"
    path.write_bytes(whole)
    return path


def flip(path, bit):
    """Twice, and nothing has happened."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def test_a_thousand_flipped_bits_are_each_refused(whole, copy):
    bits = np.random.default_rng(0).choice(8 * len(whole), 1000, replace=False)
    for bit in bits.tolist():
        flip(copy, bit)
        with pytest.raises(ModelError, match=r"model\.tflite"):
            Recognizer(copy)
        flip(copy, bit)
    assert Recognizer(copy).card  # it was the bits


def test_fifty_files_cut_short_are_each_refused(whole, tmp_path):
    lengths = np.random.default_rng(1).choice(len(whole), 47, replace=False).tolist()
    # And by a byte, by the trailer, and by all.
    lengths += [len(whole) - 1, len(whole) - container.TRAILER_BYTES, 0]
    path = tmp_path / "model.tflite"
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"model\.tflite"):
            Recognizer(path)


def places(whole):
    """Byte offsets in the parts of a device file."""
    model = schema.Model.GetRootAs(whole, 0)
    sizes = [model.Buffers(i).DataLength() for i in range(model.BuffersLength())]
    weights = model.Buffers(int(np.argmax(sizes))).DataAsNumpy().tobytes()
    found = container.read(default_model())
    return {
        "root offset": 1,
        "identifier": 5,
        "first table": 40,
        "metadata": whole.index(container.describe(found.spec, found.card)) + 100,
        "weights": whole.index(weights) + len(weights) // 2,
        "trailer's magic": len(whole) - container.TRAILER_BYTES + 3,
        "digest": len(whole) - 5,
    }


@pytest.fixture
def transcribe(tmp_path):
    """The command on a second of noise, in a process of its own: a crash would be a signal."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)

    def run(model):
        command = [sys.executable, "-m", "speechrnn", "transcribe", str(tmp_path / "a.wav")]
        return subprocess.run(
            [*command, "--model", str(model)], capture_output=True, text=True, cwd=REPOSITORY
        )

    return run


def refused(done, path: Path):
    return (done.returncode, done.stdout) == (4, "") and f"error: {path}" in done.stderr


def test_the_command_refuses_damage_in_any_part_with_exit_code_4(whole, copy, transcribe):
    assert transcribe(copy).returncode == 0
    for place, offset in places(whole).items():
        flip(copy, 8 * offset + 3)
        done = transcribe(copy)
        assert refused(done, copy), (place, done)
        flip(copy, 8 * offset + 3)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99999])
def test_the_command_refuses_a_file_cut_short_with_exit_code_4(whole, copy, transcribe, share):
    copy.write_bytes(whole[: int(share * len(whole))])
    assert refused(transcribe(copy), copy)
