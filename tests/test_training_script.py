"""The script that docs/in_python.md shows: a training loop on the package's parts."""

from __future__ import annotations

import re
import runpy
import sys

import numpy as np
from conftest import REPOSITORY, write_recipe

SCRIPT = REPOSITORY / "tests" / "training_script.py"


def test_a_training_loop_of_ones_own_learns(whistles, tmp_path, monkeypatch, capsys):
    path = write_recipe(tmp_path, whistles)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(path), "training.epochs=3"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) > 9
    # From chance, about 40 nats an utterance, far down within 20 steps; batches differ by half.
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:2])


def test_the_script_has_twenty_lines_and_its_main_guard():
    code = SCRIPT.read_text().split('"""')[2].splitlines()
    assert len([line for line in code if line.strip()]) <= 21


def test_the_page_shows_the_script_as_it_is_tested():
    script = SCRIPT.read_text()
    page = (REPOSITORY / "docs" / "in_python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert [block for block in blocks if block.startswith(script.splitlines()[0])] == [script]
