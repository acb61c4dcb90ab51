"""The HTML report of an evaluation: one file with everything in it, and nothing else."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import soundfile
from conftest import RATE, whistle
from PIL import Image
from reported import Mishearing, corpus, evaluated, renamed, spikes

from speechrnn.evaluation import worst
from speechrnn.evaluation.pictures import Stretch, picture
from speechrnn.evaluation.report import write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """(page, evaluation, utterances) of 20 utterances, 10 of them with errors."""
    folder = tmp_path_factory.mktemp("report")
    utterances, recogniser = corpus(folder, 20, 10)
    evaluation = evaluated(utterances, recogniser)
    write_report(evaluation, utterances, recogniser, folder / "report.html", "A title", worst=6)
    return (folder / "report.html").read_text("utf-8"), evaluation, utterances


def articles(page):
    return re.findall(r'<article class="case">.*?</article>', page, re.S)


def heading(article):
    return re.search(r"<h3[^>]*>(.*?)</h3>", article)[1]


def test_the_page_asks_for_nothing_from_outside(report):
    page = report[0]
    sources = re.findall(r'(?:src|href|action|poster)="([^"]{0,40})', page)
    assert sources and all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "default-src 'none'" in page


def test_the_figures_are_those_of_the_evaluation(report):
    page, evaluation, _ = report
    low, high = (f"{100 * bound:.1f}" for bound in evaluation.rates.wer_ci95)
    assert f"<dd>{100 * evaluation.rates.wer:.2f} %</dd>" in page
    assert f"95 % interval {low} to {high}, over 12 speakers" in page
    assert page.count('<tr role="row">') + page.count('<tr role="row" data-marked>') > 20


def test_every_utterance_is_in_the_table_and_those_with_errors_are_marked(report):
    page, evaluation, _ = report
    table = page[page.index("<h2>All utterances") :]
    rows = re.findall(r'<tr role="row"( data-marked)?><td[^>]*><span[^>]*>(u\d+)<', table)
    assert [name for _, name in rows] == [s.utterance_id for s in evaluation.rates.scores]
    marked = {name for flag, name in rows if flag}
    assert marked == {s.utterance_id for s in evaluation.rates.scores if s.errors}


def test_the_worst_come_first_and_no_more_than_asked_for(report):
    page, evaluation, _ = report
    errors = {s.utterance_id: s.errors for s in evaluation.rates.scores}
    shown = [errors[heading(article)] for article in articles(page)]
    assert shown == sorted(errors.values(), reverse=True)[:6]


def test_an_article_holds_the_alignment_in_words_and_not_in_colour_alone(report):
    article = articles(report[0])[0]
    marks = re.findall(r'<li class="(\w+)">.*?(?:<small title="(\w+)">(\w)</small>)?</li>', article)
    assert marks == [("substitute", "substituted", "S")] * 3


def test_the_sound_is_the_recording(report):
    page, _, utterances = report
    article = articles(page)[0]
    paths = {u.utterance_id: u.path for u in utterances}
    encoded = re.search(r'src="data:audio/flac;base64,([^"]+)"', article)[1]
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)), dtype="int16")
    wave, _ = soundfile.read(paths[heading(article)], dtype="int16")
    assert rate == RATE
    np.testing.assert_array_equal(heard, wave)


def test_what_a_corpus_says_is_never_markup(tmp_path):
    utterances, recogniser = corpus(tmp_path, 4, 4)
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    evaluation, named = renamed(
        evaluated(utterances, recogniser), utterances, lambda name: f"{name}{evil}"
    )
    write_report(evaluation, named, recogniser, tmp_path / "report.html", evil)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<script>") == 1  # our own
    assert "<img src=x" not in page and "alert(1)" in page


def test_a_recording_that_is_gone_since_is_said_to_be(tmp_path):
    utterances, recogniser = corpus(tmp_path, 4, 2)
    evaluation = evaluated(utterances, recogniser)
    utterances[1].path.unlink()
    write_report(evaluation, utterances, recogniser, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "u0001.wav cannot be read any more" in page and page.count("<audio") == 1


def test_sound_that_does_not_fit_is_left_out_and_the_picture_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(worst, "MOST_SOUND", 60_000)  # one recording of 1.5 s
    utterances, recogniser = corpus(tmp_path, 3, 3)
    write_report(evaluated(utterances, recogniser), utterances, recogniser, tmp_path / "r.html")
    found = articles((tmp_path / "r.html").read_text("utf-8"))
    assert [("<audio" in a, "<img" in a) for a in found] == [(True, True), *[(False, True)] * 2]


def test_an_evaluation_without_errors_has_a_report(tmp_path):
    utterances, recogniser = corpus(tmp_path, 3, 0)
    write_report(evaluated(utterances, recogniser), utterances, recogniser, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "None has an error." in page and not articles(page)


def test_rates_that_are_infinite_have_a_report(tmp_path):
    utterances, recogniser = corpus(tmp_path, 1, 1)
    (silent,) = (type(u)(u.utterance_id, u.path, "", "dev") for u in utterances)
    evaluation = evaluated([silent], recogniser)
    assert evaluation.rates.wer == np.inf
    write_report(evaluation, [silent], recogniser, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "∞" in page and "nan" not in page.split("<main>")[1].split("data:audio")[0]


def test_a_thousand_utterances_make_a_small_page(tmp_path):
    utterances, recogniser = corpus(tmp_path, 1000, 300)
    write_report(
        evaluated(utterances, recogniser), utterances, recogniser, tmp_path / "r.html", worst=3
    )
    page = (tmp_path / "r.html").read_text("utf-8")
    media = sum(map(len, re.findall(r"base64,[^\"]+", page)))
    # A kilobyte a row, of which a browser reads a hundred megabytes a second.
    assert len(page) - media < 1_000_000 + 50_000


def test_a_posterior_stands_in_the_picture_at_its_time():
    spec, alphabet = Mishearing.spec, Mishearing.alphabet
    waveform = whistle("ab", 0)
    log_probs = spikes(alphabet, "", len(waveform), spec)
    when = len(log_probs) // 2
    log_probs[when] = np.log(1e-6)
    log_probs[when, 1 + 1] = 0  # "a"
    seconds = len(waveform) / RATE
    drawn = picture(waveform, log_probs, spec)
    image = np.asarray(Image.open(io.BytesIO(drawn.png)).convert("L"))
    assert image.shape == (drawn.height, drawn.width)
    # The top line of the lower half is that of "a": dark where it is probable, else white.
    lower = image[image.shape[0] // 2 :]
    frame = spec.seconds_per_output_frame
    columns = [
        round(
            image.shape[1]
            * (drawn.left + (drawn.right - drawn.left) * (when + shift) * frame / seconds)
        )
        for shift in (-0.5, 0.5, 1.5)
    ]
    dark = [int((lower[:, column] < 60).sum()) for column in columns]
    # The blank's line is dark beside it, the line of "a" within: as high, and at another place.
    rows = [np.flatnonzero(lower[:, column] < 60).mean() for column in columns]
    assert min(dark) >= 8
    assert rows[1] < rows[0] - 5 and rows[1] < rows[2] - 5


def test_a_picture_takes_any_text():
    spec, alphabet = Mishearing.spec, Mishearing.alphabet
    waveform = whistle("ab", 0)
    log_probs = spikes(alphabet, "ab", len(waveform), spec)
    words = [Stretch("$x_1$", 0.0, 0.1), Stretch("नमस्ते", 0.2, 0.3), Stretch("\\frac{", 0.3, 0.4)]
    drawn = picture(waveform, log_probs, spec, words, words)
    assert Image.open(io.BytesIO(drawn.png)).format == "PNG"


def test_the_command_writes_the_report_beside_its_answer(speechrnn, tmp_path, whistles):
    from speechrnn.corpora import manifest
    from speechrnn.runtime import default_model

    manifest.write(tmp_path / "m.tsv", manifest.read(whistles)[:4])
    out = tmp_path / "report.html"
    code, text, _ = speechrnn("evaluate", default_model(), tmp_path / "m.tsv", "--report", out)
    assert code == 0 and "WER" in text
    assert "an4.tflite on m.tsv" in out.read_text("utf-8")
