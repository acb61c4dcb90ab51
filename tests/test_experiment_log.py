"""The log of experiments: a line for each training, made once, and a table that agrees with it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, write_recipe

from speechrnn.errors import RecipeError

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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("pipelines_experiment_log", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, found)  # dataclasses look themselves up
    spec.loader.exec_module(found)
    return found


def line(seed, errors, **more):
    """Two speakers of 10 and 30 words, with so many errors."""
    sums = {"anna": [errors[0], 10], "boris": [errors[1], 30]}
    row = {"key": f"tried {seed}", "experiment": "tried", "seed": seed, "settings": "other"}
    told = {"greedy": sums, "lexicon-and-3-gram": sums}
    rates = dict.fromkeys(("last_wer", "cer", "last_dev_loss", "core_minutes"), 0.5)
    return {**row, **rates, "wer": sum(errors) / 40, "errors_words_by_speaker": told, **more}


def test_a_rate_is_that_of_all_seeds_and_its_interval_is_over_speakers(module):
    import experiment_table

    mean, low, high = experiment_table.over_seeds([line(1, (1, 3)), line(2, (3, 9))], "greedy")
    assert mean == pytest.approx(16 / 80)
    # Both speakers have 4 / 20 and 12 / 60, whoever is drawn.
    assert (low, high) == pytest.approx((0.2, 0.2))
    _, low, high = experiment_table.over_seeds([line(1, (0, 30))], "greedy")
    assert (low, high) == (0, 1)


def test_the_page_has_a_line_for_what_was_tried_and_none_for_what_was_not(
    module, tmp_path, whistles
):
    listed = {name: {"change": name.upper(), "why": "-"} for name in ("tried", "untried")}
    (tmp_path / "experiments.yaml").write_text(json.dumps(listed))
    (tmp_path / "README.md").write_text(
        "Before.\n<!-- table -->\nold\n<!-- end of table -->\nBehind.\n"
    )
    recipe = write_recipe(tmp_path, whistles)
    log = module.Log(recipe, tmp_path, tmp_path)
    (tried,) = log.experiments(["tried"])
    now = [module.settings(tried.recipe(recipe, seed, tmp_path, [])) for seed in (1, 2)]
    lines = [line(seed, (seed, 3), settings=now[seed - 1]) for seed in (1, 2)]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert "`untried`" not in log.write_table()
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("Before.\n<!-- table -->\n")
    assert page.endswith("<!-- end of table -->\nBehind.\n")
    assert "old" not in page
    assert f"| `tried` | TRIED | 2 | {100 * np.mean([4 / 40, 5 / 40]):.1f} % (" in page
    write_recipe(tmp_path, whistles, training={"learning_rate": 0.5})
    assert "| `tried` (before the recipe's last change) |" in log.write_table()


def test_a_line_of_other_settings_stands_beside_nothing(module, tmp_path, whistles):
    recipe = write_recipe(tmp_path, whistles)
    (tmp_path / "experiments.yaml").write_text('{"tried": {"change": "none", "why": "-"}}')
    (tmp_path / "results.jsonl").write_text(json.dumps(line(1, (0, 0))) + "\n")
    log = module.Log(recipe, tmp_path, tmp_path / "runs")
    with pytest.raises(RecipeError, match="tried 1 was made with other settings"):
        log.train_missing(["tried"], [1], 1, f"data.manifest={whistles}")
    with pytest.raises(RecipeError, match="has no untried; it has tried"):
        log.train_missing(["untried"], [1], 1, f"data.manifest={whistles}")


@pytest.mark.parametrize("begun", ["training.learning_rate=0.5", None])
def test_a_training_with_other_settings_is_not_gone_on_with(module, tmp_path, whistles, begun):
    """A run directory knows nothing of the schedule: it would be taken for one of the new."""
    path = write_recipe(tmp_path, whistles)
    (tmp_path / "experiments.yaml").write_text('{"tried": {"change": "none", "why": "-"}}')
    log = module.Log(path, tmp_path, tmp_path / "runs")
    source = f"data.manifest={whistles}"
    recipe = log.experiments(["tried"])[0].recipe(path, 1, log.output, [source])
    assert not module.of_others(recipe)
    recipe.output.mkdir(parents=True)
    there = recipe.output / "recipe.yaml"
    there.write_text(recipe.to_yaml())
    assert not module.of_others(recipe)
    other = module.recipes.load(path, [begun, "seed=1"]).to_yaml() if begun else "of: old"
    there.write_text(other)
    with pytest.raises(RecipeError, match="runs/tried/1: begun with other settings"):
        log.train_missing(["tried"], [1], 1, source)


def test_a_line_that_nobody_took_is_taken_and_its_training_not_done_again(
    module, tmp_path, whistles
):
    """As after a stop that came while the last one was being written."""
    path = write_recipe(tmp_path, whistles)
    (tmp_path / "experiments.yaml").write_text('{"tried": {"change": "none", "why": "-"}}')
    log = module.Log(path, tmp_path, tmp_path / "runs")
    left = tmp_path / "runs" / "tried" / "1" / module.LINE
    left.parent.mkdir(parents=True)
    left.write_text(json.dumps(line(1, (2, 3))))
    log.train_missing(["tried"], [1], 1, f"data.manifest={whistles}")
    assert module.results.read(log.results, module.KEYS) == [line(1, (2, 3))]
    assert not left.exists()


def test_settings_are_what_a_result_depends_on(module, tmp_path, whistles):
    path = write_recipe(tmp_path, whistles)
    plain = module.settings(module.recipes.load(path))
    assert module.settings(module.recipes.load(path, ["output=x", "training.threads=1"])) == plain
    for change in ("seed=2", "training.epochs=3", "model.units=8", "augment.speed=[1,1.5]"):
        assert module.settings(module.recipes.load(path, [change])) != plain


def test_the_committed_page_is_that_of_the_committed_results(module, tmp_path):
    folder = REPOSITORY / "configs" / "an4"
    (tmp_path / "README.md").write_text("<!-- table --><!-- end of table -->")
    for name in ("experiments.yaml", "results.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    told = module.Log(REPOSITORY / "configs" / "an4.yaml", tmp_path, tmp_path).write_table()
    assert told.count("\n") > 1
    assert told in (folder / "README.md").read_text()
