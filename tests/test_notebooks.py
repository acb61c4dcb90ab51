"""The notebooks: executed in small form as a reader would, and what is committed of them."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
import typer
from conftest import RATE, REPOSITORY, whistle

from speechrnn import cli
from speechrnn.runtime import open_model

FOLDER = REPOSITORY / "notebooks"
CELLS = FOLDER / "from_basic_rnns_to_gated_cells.ipynb"
INSIDE = FOLDER / "look_inside_a_recogniser.ipynb"
COMMANDS = FOLDER / "your_own_commands.ipynb"
DEVICE = FOLDER / "to_the_device.ipynb"
DATA = os.environ.get("SPEECHRNN_DATA")
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PICTURES = {CELLS: 9, INSIDE: 9, COMMANDS: 2, DEVICE: 4}  # at least so many in the full form
FOREIGN = re.compile(r"(?<![\w.:/])(/\w[\w.-]*){2,}|[A-Z]:\\|file://|127\.0\.0\.1|localhost")


@pytest.fixture(scope="session")
def runner():
    path = REPOSITORY / "pipelines" / "run_notebooks.py"
    spec = importlib.util.spec_from_file_location("pipelines_run_notebooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def execute(runner, tmp_path, monkeypatch):
    """Run a notebook in its small form: execute(path, **environment) -> the executed notebook.

    Without human recordings, unless the environment names them. A cell that raises fails the test
    with its traceback.
    """
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("MODEL", "RUN", "RECORDING", "TEXT", "RECORDED"):
        monkeypatch.delenv(f"SPEECHRNN_NOTEBOOK_{name}", raising=False)
    monkeypatch.delenv("SPEECHRNN_DATA", raising=False)
    monkeypatch.setenv("SPEECHRNN_NOTEBOOK_SMALL", "1")

    def run(path, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        return runner.executed(path)

    return run


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def pictures(notebook):
    return [output for output in outputs(notebook) if "image/png" in output.get("data", {})]


def complaints(notebook):
    """What went to stderr: warnings, among others."""
    return [output.text for output in outputs(notebook) if output.get("name") == "stderr"]


def printed(notebook, tag):
    """What the one cell with this tag wrote to stdout."""
    (cell,) = (c for c in notebook.cells if tag in c.metadata.get("tags", []))
    return "".join(o.text for o in cell.outputs if o.get("name") == "stdout").removesuffix("\n")


def needs_a_synthesiser():
    pytest.importorskip("espeakng_loader", reason="the extra [synth] is not installed")


def test_the_cells_are_compared_on_a_synthetic_voice_where_nothing_else_is_at_hand(execute):
    needs_a_synthesiser()
    done = execute(CELLS)
    assert "synthetic voices" in printed(done, "source")
    assert len(pictures(done)) >= PICTURES[CELLS]
    assert not complaints(done)


def listened(execute, trained, recording, text):
    """The look inside a reader's own model and recording -> the transcript that it shows."""
    done = execute(
        INSIDE,
        SPEECHRNN_NOTEBOOK_MODEL=trained,
        SPEECHRNN_NOTEBOOK_RECORDING=recording,
        SPEECHRNN_NOTEBOOK_TEXT=text,
    )
    assert printed(done, "recording") == f"{recording.name}: your recording"
    assert not complaints(done)
    return done, printed(done, "transcript")


@pytest.mark.long
def test_a_reader_looks_inside_an_own_model_with_an_own_recording(execute, trained, tmp_path):
    soundfile.write(tmp_path / "mine.wav", whistle("ab cad", seed=5), RATE)
    done, shown = listened(execute, trained, tmp_path / "mine.wav", "ab cad")
    heard = open_model(trained).transcribe(tmp_path / "mine.wav").text
    assert heard, "equal texts say little where nothing is heard"
    assert shown == heard
    assert len(pictures(done)) >= 8  # all but that of a mistake


@pytest.mark.long
def test_a_reader_who_looks_at_digital_silence_sees_that_nothing_is_heard(
    execute, trained, tmp_path
):
    soundfile.write(tmp_path / "mine.wav", np.zeros(RATE, np.float32), RATE)
    _, shown = listened(execute, trained, tmp_path / "mine.wav", "")
    assert shown == ""


def test_the_shipped_model_is_looked_into_as_the_notebook_stands(execute, trained):
    """But for the network of section 8, which would be trained there: the next test does that."""
    needs_a_synthesiser()
    done = execute(INSIDE, SPEECHRNN_NOTEBOOK_RUN=trained)
    assert "synthetic voice" in printed(done, "recording")
    assert printed(done, "transcript"), "the example should show a newcomer some words"
    assert len(pictures(done)) >= 8
    assert not complaints(done)


@pytest.mark.long
def test_the_notebooks_train_their_own_networks_where_none_is_named(execute):
    needs_a_synthesiser()
    for path in (INSIDE, DEVICE):
        done = execute(path)
        assert pictures(done)
        assert not complaints(done)


@pytest.mark.long
@pytest.mark.skipif(DATA is None, reason="SPEECHRNN_DATA names no folder with an4/manifest.tsv")
@pytest.mark.parametrize("path", [CELLS, INSIDE], ids=lambda path: path.stem)
def test_the_notebooks_use_recordings_of_people_where_they_are_at_hand(path, execute, trained):
    done = execute(path, SPEECHRNN_DATA=DATA, SPEECHRNN_NOTEBOOK_RUN=trained)
    assert "AN4" in printed(done, "source" if path == CELLS else "recording")
    assert not complaints(done)


def test_phrases_become_a_recogniser_on_a_device(execute):
    """The small form learns hardly anything: that each step gives something to the next one."""
    needs_a_synthesiser()
    done = execute(COMMANDS)
    assert printed(done, "corpus").startswith("synthetic speech by eSpeak NG")
    assert "word error rate on 4 dev recordings" in printed(done, "export")
    assert re.match(r"word error rate \S+ \(95 % interval", printed(done, "wer"))
    assert printed(done, "transcribed").count("heard") == 3
    assert len(pictures(done)) >= PICTURES[COMMANDS]
    assert not complaints(done)


def test_a_run_of_ones_own_goes_to_the_device(execute, trained):
    """All but the fused lowering, which tests/test_export_fused.py has."""
    done = execute(DEVICE, SPEECHRNN_NOTEBOOK_RUN=trained)
    assert printed(done, "run").startswith("whistles")
    whole, streamed = re.search(
        r"as a whole: '(.*)'; streamed: '(.*)'", printed(done, "stream")
    ).groups()
    assert whole and streamed == whole
    assert "real-time factor" in printed(done, "benchmark")
    assert len(pictures(done)) >= PICTURES[DEVICE]
    assert not complaints(done)


def test_every_notebook_is_among_those_tested():
    assert set(NOTEBOOKS) == set(PICTURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_was_executed_from_the_first_cell_to_the_last(path, runner):
    """And the cells are those that ran: `python pipelines/run_notebooks.py` renews the outputs."""
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert notebook.metadata["speechrnn"]["executed_sha256"] == runner.sources_sha256(notebook)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert len(pictures(notebook)) >= PICTURES[path]
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not complaints(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_is_small_and_tells_nothing_of_who_ran_it(path):
    """No recording of anybody, no path or host of a machine."""
    assert path.stat().st_size < 1_500_000
    notebook = nbformat.read(path, as_version=4)
    for output in outputs(notebook):
        kinds = set(output.get("data", {"text/plain": ""}))
        assert kinds <= {"image/png", "text/plain"}, "audio would be among html"
        text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        assert not FOREIGN.search(text), text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_between_the_notebooks_and_the_docs_lead_somewhere(path):
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    targets = [Path(t) for t in re.findall(r"\]\(([^)#:]+)", text)]
    assert [str(t) for t in targets if not (FOLDER / t).exists()] == []


def shown_commands():
    """Every call of the command that a notebook shows: its name and the words behind it."""
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                for line in re.findall(
                    r"^    speechrnn (.*)$|`speechrnn ([^`]+)`", cell.source, re.M
                ):
                    yield path.stem, shlex.split("".join(line))


@pytest.mark.parametrize(("notebook", "words"), [*shown_commands()], ids=lambda v: str(v)[:40])
def test_a_command_in_a_notebook_has_the_options_that_it_shows(notebook, words):
    commands = typer.main.get_command(cli.app).commands
    assert words[0] in commands
    known = {option for each in commands[words[0]].params for option in each.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_commands_are_found_in_the_notebooks():
    """The test above would also pass where none is."""
    assert len({words[0] for _, words in shown_commands()}) >= 8
