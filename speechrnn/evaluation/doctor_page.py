"""What the doctor says of a corpus -> one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from speechrnn.evaluation import page
from speechrnn.evaluation.doctor import Diagnosis
from speechrnn.evaluation.findings import Case, Finding, Item
from speechrnn.evaluation.recordings import Recording
from speechrnn.files import write_atomically

OPEN = 10  # utterances of a finding that are shown at once; the rest unfold


def write_page(diagnosis: Diagnosis, path: Path, title: str) -> None:
    """Write the page of a corpus called ``title``, atomically."""
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(diagnosis.verdict)}</p>',
        _figures(diagnosis),
        page.section("What was found", _findings(diagnosis.findings)),
        page.section("How it is spread", _histograms(diagnosis)),
        _characters(diagnosis),
        _cases(diagnosis),
    ]
    write_atomically(path, page.document(f"speechrnn doctor: {title}", "\n".join(body)))


def _figures(diagnosis: Diagnosis) -> str:
    told = diagnosis.summary()
    splits = ", ".join(f"{count} {name}" for name, count in told["splits"].items())
    rates = ", ".join(f"{count} at {rate} Hz" for rate, count in told["sample_rates"].items())
    return page.figures(
        [
            ("Utterances", str(told["utterances"]), splits),
            ("Hours", f"{told['hours']:.2f}", f"{told['readable']} recordings could be read"),
            ("Speakers", str(told["speakers"]), "as the manifest names them"),
            ("Characters", str(len(told["characters"])), "after normalisation"),
            ("Sample rates", str(len(told["sample_rates"])), rates),
        ]
    )


def _findings(findings: Sequence[Finding]) -> str:
    return "\n".join(
        f'<div class="finding {found.severity}"><h3><span class="tag">{found.severity}</span>'
        f"{len(found.items)} {escape(found.title)}</h3><p>{escape(found.advice)}</p>"
        f"{_items(found.items)}</div>"
        for found in findings
    )


def _items(items: Sequence[Item]) -> str:
    rest = ""
    if len(items) > OPEN:
        rest = (
            f"<details><summary>{len(items) - OPEN} more</summary>{_list(items[OPEN:])}</details>"
        )
    return _list(items[:OPEN]) + rest


def _list(items: Sequence[Item]) -> str:
    lines = "".join(
        f'<li dir="auto"><b>{escape(item.utterance_id)}</b>: {escape(item.detail)}</li>'
        for item in items
    )
    return f"<ul>{lines}</ul>"


def _histograms(diagnosis: Diagnosis) -> str:
    drawn = [page.histogram(name, v) for name, v in diagnosis.distributions.items() if v]
    return f'<div class="histograms">{"".join(drawn)}</div>'


def _characters(diagnosis: Diagnosis) -> str:
    having = {char: 0 for case in diagnosis.cases for char in case.text}
    for case in diagnosis.cases:
        for char in set(case.text):
            having[char] += 1
    rows = [
        (
            page.text("␣" if char == " " else char),
            page.text(f"U+{ord(char):04X}"),
            page.number(count),
            page.number(having[char]),
        )
        for char, count in diagnosis.summary()["characters"].items()
    ]
    listing = page.table(["Character", "Code", "Times", "Utterances"], rows, "After normalisation.")
    return f"<details><summary>Characters of the transcripts</summary>{listing}</details>"


def _cases(diagnosis: Diagnosis) -> str:
    named = {item.utterance_id for found in diagnosis.findings for item in found.items}
    columns = ["Utterance", "Split", "Speaker", "Seconds", "Level", "Clipped", "Pauses"]
    columns += ["Mismatch", "Text", "Heard"] if diagnosis.judged else ["Text"]
    listing = page.table(
        columns,
        [_row(case, diagnosis.judged) for case in diagnosis.cases],
        "Level in dBFS, clipped samples and pauses in percent"
        + (", mismatch in nats a symbol." if diagnosis.judged else "."),
        marked=[case.name in named for case in diagnosis.cases],
        filter_name="with findings only",
    )
    return page.section("All utterances", listing)


def _row(case: Case, judged: bool) -> list[page.Cell]:
    told = case.utterance
    measured = case.recording if isinstance(case.recording, Recording) else None
    cells = [
        page.text(case.name),
        page.text(told.split),
        page.text(told.speaker),
        page.number(measured.duration_s if measured else None, 1),
        page.number(measured.rms_dbfs if measured else None, 1),
        page.number(measured.clipped if measured else None, 2, 100),
        page.number(measured.pauses if measured else None, 0, 100),
    ]
    if judged:
        cells.append(page.number(case.judged.mismatch if case.judged else None, 2))
    cells.append(page.text(case.text))
    if judged:
        cells.append(page.text(case.judged.heard if case.judged else ""))
    return cells
