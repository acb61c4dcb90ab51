"""The notebooks: executed as a reader would, on the shipped model and on a reader's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
from conftest import RATE, REPOSITORY, whistle
from nbclient import NotebookClient

from speechrnn.runtime import PRETRAINED, Recognizer

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
WALKTHROUGH = REPOSITORY / "notebooks" / "recording_to_transcript.ipynb"
SECONDS = 240  # for the slowest cell; all of them together take ten


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Run a notebook with this interpreter in a folder of its own: execute(path, **environment).

    Returns the executed notebook; a cell that raises fails the test with its traceback.
    """
    kernel = tmp_path / "jupyter" / "kernels" / "this-python"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    specification = {"argv": command, "display_name": "this Python", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(specification))
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("SPEECHRNN_NOTEBOOK_MODEL", "SPEECHRNN_NOTEBOOK_RECORDING"):
        monkeypatch.delenv(name, raising=False)

    def run(path, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="this-python",
            resources={"metadata": {"path": str(tmp_path)}},
        )
        return client.execute()

    return run


def printed(notebook, tag):
    """What the one cell with this tag wrote to stdout."""
    (cell,) = (c for c in notebook.cells if tag in c.metadata.get("tags", []))
    return "".join(o.text for o in cell.outputs if o.get("name") == "stdout").removesuffix("\n")


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output for output in outputs if "image/png" in output.get("data", {})]


@pytest.fixture(scope="module")
def whistle_model(trained, tmp_path_factory):
    """The device file of the recogniser of whistles."""
    from speechrnn.export.tflite import export_tflite
    from speechrnn.training import run

    path = tmp_path_factory.mktemp("notebooks") / "whistles.tflite"
    model = run.load(trained)
    export_tflite(model.model, model.spec, model.card, path, "float32")
    return path


@pytest.mark.parametrize(
    "waveform",
    [whistle("ab cad", seed=5), np.zeros(RATE, np.float32)],
    ids=["words", "digital silence"],
)
def test_the_walkthrough_takes_a_readers_own_model_and_recording(
    waveform, execute, whistle_model, tmp_path
):
    recording = tmp_path / "mine.wav"
    soundfile.write(recording, waveform, RATE)
    done = execute(
        WALKTHROUGH,
        SPEECHRNN_NOTEBOOK_MODEL=whistle_model,
        SPEECHRNN_NOTEBOOK_RECORDING=recording,
    )
    heard = Recognizer(whistle_model).transcribe(recording).text
    assert heard or not waveform.any(), "equal texts say little where nothing is heard"
    assert printed(done, "recording") == str(recording)
    assert printed(done, "transcript") == heard
    assert len(pictures(done)) >= 3


def test_the_walkthrough_runs_as_it_stands(execute):
    shipped = list(PRETRAINED.glob("*.tflite"))
    if not shipped:
        pytest.skip(f"no model in {PRETRAINED}")
    done = execute(WALKTHROUGH)
    heard = Recognizer(shipped[0]).transcribe(Path(printed(done, "recording")))
    assert heard.text, "the example should show a newcomer some words"
    assert printed(done, "transcript") == heard.text
    assert len(pictures(done)) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    """They would hold whose recording it was, and show another model's answers."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert not [cell.id for cell in cells if cell.outputs or cell.execution_count is not None]
    assert path.stat().st_size < 300_000
