"""The log of experiments: a line for each training, made once, and a table that agrees with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY, write_recipe

SCRIPT = REPOSITORY / "pipelines" / "experiment_log.py"


@pytest.fixture(scope="module")
def log(tmp_path_factory, whistles):
    """A log of two experiments, one of them with two seeds: log(*arguments) runs the script."""
    folder = tmp_path_factory.mktemp("log")
    recipe = write_recipe(folder, whistles, training={"epochs": 3})
    listed = {
        "as_it_stands": {"change": "none", "why": "to compare with"},
        "longer": {"change": "4 epochs", "why": "more", "overrides": ["training.epochs=4"]},
    }
    (folder / "experiments.yaml").write_text(json.dumps(listed))
    (folder / "README.md").write_text("Before.\n<!-- table -->\n\n<!-- end of table -->\nBehind.\n")

    def run(*arguments):
        own = ["--recipe", recipe, "--folder", folder, "--output", folder, "--data", whistles]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "2"}
        return subprocess.run(
            [sys.executable, SCRIPT, *own, *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )

    run.folder = folder
    run.recipe = recipe
    done = run("as_it_stands", "--seeds", "1,2")
    if done.returncode:
        pytest.fail(done.stderr)
    return run


def rows(log):
    return [json.loads(line) for line in (log.folder / "results.jsonl").read_text().splitlines()]


def test_every_seed_has_a_line_that_agrees_with_its_errors(log):
    found = rows(log)
    assert sorted(row["key"] for row in found) == ["as_it_stands 1", "as_it_stands 2"]
    assert found[0]["settings"] != found[1]["settings"]
    for row in found:
        speakers = row["errors_words_by_speaker"]["greedy"].values()
        errors, words = (sum(each[k] for each in speakers) for k in (0, 1))
        assert row["wer"] == pytest.approx(errors / words)
        assert row["epochs"] == 3
        assert row["best_epoch"] <= 3


def test_what_is_there_is_not_made_again_and_the_page_tells_it(log):
    before = (log.folder / "results.jsonl").read_bytes()
    done = log("as_it_stands", "--seeds", "2,1")
    assert done.returncode == 0, done.stderr
    assert (log.folder / "results.jsonl").read_bytes() == before
    page = (log.folder / "README.md").read_text()
    assert page.startswith("Before.\n")
    assert page.endswith("Behind.\n")
    (line,) = (line for line in page.splitlines() if "`as_it_stands`" in line)
    mean = sum(row["wer"] for row in rows(log)) / 2
    assert f"| 2 | {100 * mean:.1f} % (" in line
    assert "`longer`" not in page, "it was not trained"


def test_lines_of_other_settings_are_refused(log):
    changed = json.loads(log.recipe.read_text())
    changed["training"]["learning_rate"] /= 2
    kept = log.recipe.read_bytes()
    try:
        log.recipe.write_text(json.dumps(changed))
        done = log("as_it_stands")
    finally:
        log.recipe.write_bytes(kept)
    assert done.returncode == 2
    assert "as_it_stands 1 was made with other settings" in done.stderr
    assert log("no_such").returncode == 2
