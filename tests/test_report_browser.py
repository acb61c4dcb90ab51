"""The pages in a browser: they open from disk without a network, sort, search, play and fit."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import pytest
from reported import corpus, evaluated, renamed

from speechrnn.evaluation.doctor import examine
from speechrnn.evaluation.doctor_page import write_page
from speechrnn.evaluation.report import write_report

pytestmark = pytest.mark.browser

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1200, "height": 900}
EVIL = '"><script>window.hurt = 1</script><img src=x onerror="window.hurt = 1">'


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium on the path; Debian's package is called chromium")
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Open a page from disk: opened(path, viewport) -> the page; it must ask for nothing else and
    complain of nothing, which is looked at in the end."""
    asked, complaints, contexts = [], [], []

    def call(path, viewport=DESK):
        context = chromium.new_context(viewport=viewport)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)

        def route(request):
            if request.request.url == path.as_uri():
                request.continue_()
            else:
                asked.append(request.request.url[:80])
                request.abort()

        context.route("**/*", route)
        tab.on("console", lambda said: complaints.append(said.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(path.as_uri())
        return tab

    yield call
    for context in contexts:
        context.close()
    # A data: URI is the page's own, and no request leaves for it.
    assert [url for url in asked if not url.startswith("data:")] == []
    assert complaints == []


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    utterances, recogniser = corpus(folder, 30, 12)
    evaluation = evaluated(utterances, recogniser)
    write_report(evaluation, utterances, recogniser, folder / "report.html", "A title", worst=4)
    return folder / "report.html", evaluation


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """1,000 utterances of which 400 have errors, and 30 are shown with sound and picture."""
    folder = tmp_path_factory.mktemp("thousand")
    utterances, recogniser = corpus(folder, 1000, 400)
    write_report(evaluated(utterances, recogniser), utterances, recogniser, folder / "report.html")
    return folder / "report.html"


def listing(tab):
    return tab.locator(".listing.wide").last


def column(tab, number):
    """The shown cells of a column of the table of all utterances, from above."""
    rows = listing(tab).locator("tbody tr:visible")
    return rows.locator(f"td:nth-child({number})").all_inner_texts()


def test_the_report_opens_without_a_network_and_shows_its_figures(opened, report):
    path, evaluation = report
    tab = opened(path)
    assert tab.title().startswith("A title")
    assert f"{100 * evaluation.rates.wer:.2f} %" in tab.locator(".figures").inner_text()
    assert tab.locator("article.case").count() == 4
    drawn = tab.evaluate(
        "Promise.all(Array.from(document.images, image => {"
        " image.loading = 'eager'; return image.decode() })).then(all => all.length)"
    )
    assert drawn == 4


def test_a_column_sorts_both_ways_and_says_so(opened, report):
    path, evaluation = report
    tab = opened(path)
    head = listing(tab).get_by_role("columnheader", name="Errors")
    errors = sorted(s.errors for s in evaluation.rates.scores)
    head.get_by_role("button").click()
    assert [int(n) for n in column(tab, 5)] == errors[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").press("Enter")
    assert [int(n) for n in column(tab, 5)] == errors
    assert head.get_attribute("aria-sort") == "ascending"
    listing(tab).get_by_role("button", name="Utterance").click()
    assert column(tab, 1) == [s.utterance_id for s in evaluation.rates.scores]
    assert head.get_attribute("aria-sort") == "none"


def test_the_search_and_the_filter_leave_what_was_asked_for(opened, report):
    path, evaluation = report
    tab = opened(path)
    listing(tab).get_by_label("Search").fill("SPEAKER03")
    wanted = [s for s in evaluation.rates.scores if s.group == "speaker03"]
    assert column(tab, 1) == [s.utterance_id for s in wanted]
    assert listing(tab).locator("output").inner_text() == f"{len(wanted)} of 30"
    listing(tab).get_by_label("errors only").check()
    assert column(tab, 1) == [s.utterance_id for s in wanted if s.errors]
    listing(tab).get_by_label("Search").fill("")
    assert len(column(tab, 1)) == 12


def test_a_recording_plays_and_the_picture_shows_where(opened, report):
    tab = opened(report[0])
    case = tab.locator("article.case").first
    case.locator("audio").evaluate("audio => audio.play()")
    tab.wait_for_function(
        "() => { const a = document.querySelector('article audio');"
        " return a.currentTime > 0.05 && a.duration > 0.5 }"
    )
    assert case.locator(".cursor").is_visible()


def test_a_click_in_the_picture_plays_from_there(opened, report):
    tab = opened(report[0])
    case = tab.locator("article.case").first
    box = case.locator("img").bounding_box()
    case.locator("img").click(position={"x": box["width"] * 0.75, "y": 20})
    # The margin is on the left, a tenth of the width at most: 0.72 of the recording or more.
    tab.wait_for_function(
        "() => { const a = document.querySelector('article audio');"
        " return a.duration && a.currentTime / a.duration > 0.7 }"
    )


def test_the_pages_fit_a_phone(opened, report, checked):
    for path in (report[0], checked):
        tab = opened(path, PHONE)
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        smallest = tab.evaluate(
            "Math.min(...Array.from(document.querySelectorAll('p, td, th, dd, li, button'),"
            " e => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert smallest >= 12  # CSS pixels
        head = listing(tab).get_by_role("button", name="Utterance")
        head.click()
        assert head.is_visible()


def test_on_a_phone_the_picture_follows_the_sound(opened, report):
    tab = opened(report[0], PHONE)
    case = tab.locator("article.case").first
    case.locator("audio").evaluate("audio => { audio.currentTime = 0.9 * 1.3; audio.play() }")
    tab.wait_for_function("() => document.querySelector('.picture').scrollLeft > 20")
    frame, cursor = (case.locator(name).bounding_box() for name in (".picture", ".cursor"))
    assert frame["x"] <= cursor["x"] <= frame["x"] + frame["width"]


def test_what_a_corpus_says_never_runs(opened, tmp_path):
    utterances, recogniser = corpus(tmp_path, 6, 3)
    evaluation, named = renamed(
        evaluated(utterances, recogniser), utterances, lambda name: f"{name} {EVIL}"
    )
    write_report(evaluation, named, recogniser, tmp_path / "report.html", EVIL)
    tab = opened(tmp_path / "report.html")
    assert tab.evaluate("window.hurt") is None
    assert EVIL in listing(tab).inner_text()


def test_a_thousand_utterances_open_and_sort(opened, thousand, capsys):
    start = time.perf_counter()
    tab = opened(thousand, DESK)
    loaded = time.perf_counter()
    listing(tab).get_by_role("button", name="WER").click()
    tab.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    ready = time.perf_counter()
    first = listing(tab).locator("tbody tr").first
    assert first.locator("td:nth-child(6)").inner_text() == "100 %"
    elements = tab.evaluate("document.querySelectorAll('*').length")
    with capsys.disabled():
        print(
            f"\n1,000 utterances, {thousand.stat().st_size / 1e6:.1f} MB, {elements} elements: "
            f"loaded in {loaded - start:.2f} s, sorted {ready - loaded:.2f} s later"
        )
    # What a browser takes is in proportion to these: half a second on a slow core.
    assert thousand.stat().st_size < 20_000_000
    assert elements < 25_000


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """The doctor's page of a corpus with faults."""
    folder = tmp_path_factory.mktemp("checked")
    utterances, _ = corpus(folder, 30, 0)
    utterances[4] = replace(utterances[4], text="")
    utterances[7] = replace(utterances[7], path=folder / "none.wav", speaker=EVIL)
    diagnosis = examine(utterances, workers=1, progress=False)
    write_page(diagnosis, folder / "doctor.html", "A corpus")
    return folder / "doctor.html"


def test_the_doctors_page_opens_sorts_and_filters(opened, checked):
    tab = opened(checked)
    assert tab.evaluate("window.hurt") is None
    assert (
        "recordings that cannot be read (1)" in tab.locator(".finding.error").all_inner_texts()[0]
    )
    listing(tab).get_by_role("button", name="Utterance").click()
    listing(tab).get_by_role("button", name="Utterance").click()
    assert column(tab, 1)[0] == "u0029"
    listing(tab).get_by_label("with findings only").check()
    assert {"u0004", "u0007"} <= set(column(tab, 1))
