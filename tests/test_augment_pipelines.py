"""The scripts around augmentation: a telephone line of its own, and a page to listen to."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import numpy as np
import pytest
import soundfile
from augmented import RATE, noise_folder, spectrum_db, tone
from conftest import REPOSITORY, write_recipe

from speechrnn import recipe
from speechrnn.augmentation import NoiseSection
from speechrnn.corpora import manifest
from speechrnn.data.augment.channel import telephone as simulated
from speechrnn.errors import RecipeError
from speechrnn.training import train


@pytest.fixture
def script(monkeypatch):
    """script("telephone", *arguments): the pipeline as a module, with this command line."""

    def load(name, *arguments):
        path = REPOSITORY / "pipelines" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"pipelines_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [path.name, *map(str, arguments)])
        return module

    return load


@pytest.mark.parametrize("rate", [RATE, 22050, 48000])
def test_the_line_passes_the_telephone_band_and_nothing_else(script, rate):
    line = script("telephone").over_the_telephone
    for hertz, least, most in (
        (50, -300, -60),
        (1000, -0.5, 0.5),
        (3000, -1, 0.5),
        (4500, -300, -60),
    ):
        heard = line(tone(hertz, rate, rate=rate), rate)
        assert len(heard) == rate
        assert least < spectrum_db(heard, hertz, rate=rate) < most


def test_what_training_simulates_is_near_the_real_line_within_its_band(script):
    rng = np.random.default_rng(0)
    wave = sum(tone(h, level=0.05) for h in rng.uniform(500, 3000, 12)).astype(np.float32)
    real, ours = script("telephone").over_the_telephone(wave, RATE), simulated(wave, RATE)
    spectra = [np.abs(np.fft.rfft(each * np.hanning(RATE))) for each in (real, ours)]
    # The line's filter turns phases; levels are alike but for the codec's noise.
    apart = np.linalg.norm(spectra[0] - spectra[1]) / np.linalg.norm(spectra[0])
    assert apart < 0.05


def test_copies_are_the_same_utterances_in_a_narrow_band(script, whistles, tmp_path):
    wide = manifest.read(whistles)[:3]
    narrow = manifest.read(script("telephone").copies(wide, tmp_path, RATE))
    assert [(u.utterance_id, u.text, u.speaker) for u in narrow] == [
        (u.utterance_id, u.text, u.speaker) for u in wide
    ]
    for one, other in zip(wide, narrow, strict=True):
        (before, _), (after, rate) = soundfile.read(one.path), soundfile.read(other.path)
        assert rate == RATE and len(after) == len(before)
        power = np.abs(np.fft.rfft(after)) ** 2
        high = len(power) * 4200 // 8000
        assert power[high:].sum() < 1e-6 * power.sum()


def test_a_model_is_scored_with_and_without_the_line(script, trained, whistles, tmp_path, capsys):
    command = ("telephone", trained, whistles, "--output", tmp_path, "--json")
    code = script(*command, "--most", 1000).main()
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found["full_band"]["utterances"] == found["telephone"]["utterances"] == 12
    cost = found["telephone"]["wer"] - found["full_band"]["wer"]
    assert found["cost"] == pytest.approx(cost)
    low, high = found["cost_ci95"]
    assert low <= found["cost"] <= high
    assert script(*command, "--most", 100 * cost - 1).main() == 1


def test_a_page_has_every_change_alone_and_all_together(script, whistles, tmp_path, capsys):
    changes = {"speed": [0.9, 0.95], "telephone": {"probability": 0.1}, "time_masks": 2}
    path = write_recipe(tmp_path, whistles, augment=changes)
    out = tmp_path / "page.html"
    script("listen_augment", path, "-o", out, "--utterances", 2, "--draws", 2).main()
    assert capsys.readouterr().out.strip() == str(out)
    page = out.read_text(encoding="utf-8")
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles == 2 * [
        *(
            "As recorded",
            "Speed",
            "Telephone",
            "SpecAugment",
            "All, in epoch 14",
            "All, in epoch 13",
        ),
    ]
    assert page.count("<audio") == page.count("<img") == len(titles)
    told = re.findall(r"<h3>Speed</h3><span[^>]*>(0\.\d+) times as fast", page)
    assert all(0.9 <= float(rate) <= 0.95 for rate in told)
    assert len(told) == 2


def test_training_does_not_go_on_with_other_noise(trained, tmp_path):
    """And it says so before it touches the run."""
    loaded = recipe.load(trained / "recipe.yaml")
    noisy = loaded.augment.model_copy(
        update={"noise": NoiseSection(folder=noise_folder(tmp_path / "noise"))}
    )
    before = (trained / "recipe.yaml").read_bytes()
    with pytest.raises(RecipeError, match="another seed"):
        train(loaded.model_copy(update={"augment": noisy}), quiet=True)
    assert (trained / "recipe.yaml").read_bytes() == before


@pytest.mark.parametrize(
    "wrong", [("--epoch", 0), ("--utterances", 0), ("--output", "nowhere/page.html")]
)
def test_a_page_that_cannot_be_is_refused_before_anything_is_prepared(script, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        script("listen_augment", "absent.yaml", *wrong).main()
    assert stop.value.code == 2
    assert wrong[0] in capsys.readouterr().err
