"""The script that tries two workers finds what is wrong; tests/test_distribution.py trains two."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from conftest import REPOSITORY


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "pipelines" / "reliability"))
    return importlib.import_module("two_workers")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ([3.0] * 40 + [3.001] + [3.0] * 19, "is off by 0.00025"),
        ([3.0] * 59 + [float("nan")], "is off by nan"),
        ([3.0] * 59, "60 steps of one worker, 59 of two"),
    ],
)
def test_curves_that_part_are_found(script, monkeypatch, other, told):
    curves = {"one": [3.0] * 60, "two": other}
    monkeypatch.setattr(script, "losses", curves.get)
    with pytest.raises(script.Broken, match=told):
        script.curves_agree("one", "two")
    assert script.curves_agree("one", "one") == 0.0


def test_a_worker_that_does_not_end_breaks_the_promise_and_is_ended(script, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], text=True)
    with pytest.raises(script.Broken, match="did not end within"):
        script.ends([process], 0.2, tmp_path / "log")
    assert process.returncode == -9
