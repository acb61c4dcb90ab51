"""What the doctor says of a corpus -> one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from speechrnn.corpora import recordings
from speechrnn.errors import AudioError
from speechrnn.evaluation import page
from speechrnn.evaluation.doctor import Diagnosis
from speechrnn.evaluation.findings import Case, Item
from speechrnn.evaluation.recordings import Recording
from speechrnn.files import write_atomically

OPEN = 10  # utterances of a finding that are shown at once; the rest unfold
HEARD = 20  # of them with sound, where the ear decides
BY_EAR = {
    *("wrong_transcript", "same_audio_other_text", "speaking_rate"),
    *("clipped", "level", "mostly_pause"),
}
SOUND_HZ = 16_000
LONGEST_S = 60.0
MOST_SOUND = 8_000_000  # bytes of all embedded recordings together: the page stays quick


def write_page(diagnosis: Diagnosis, path: Path, title: str) -> None:
    """Write the page of a corpus called ``title``, atomically."""
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(diagnosis.verdict)}</p>',
        _figures(diagnosis),
        page.section("What was found", _findings(diagnosis)),
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


def _findings(diagnosis: Diagnosis) -> str:
    by_id = {case.name: case for case in diagnosis.cases}
    left, parts = MOST_SOUND, []
    for found in diagnosis.findings:
        lines = []
        for number, item in enumerate(found.items):
            wanted = found.code in BY_EAR and number < HEARD
            sound = _sound(by_id[item.utterance_id], left) if wanted else b""
            left -= len(sound)
            lines.append(_line(item, sound))
        parts.append(
            f'<div class="finding {found.severity}"><h3><span class="tag">{found.severity}</span>'
            f"{escape(found.title)} ({len(found.items)})</h3><p>{escape(found.advice)}</p>"
            f"{_unfolding(lines)}</div>"
        )
    return "\n".join(parts)


def _line(item: Item, sound: bytes) -> str:
    heard = page.player(sound, item.utterance_id) if sound else ""
    return f'<li dir="auto"><b>{escape(item.utterance_id)}</b>: {escape(item.detail)}{heard}</li>'


def _unfolding(lines: Sequence[str]) -> str:
    shown = f"<ul>{''.join(lines[:OPEN])}</ul>"
    if len(lines) <= OPEN:
        return shown
    rest = f"<ul>{''.join(lines[OPEN:])}</ul>"
    return f"{shown}<details><summary>{len(lines) - OPEN} more</summary>{rest}</details>"


def _sound(case: Case, most_bytes: int) -> bytes:
    """A recording to listen to; nothing where it cannot be read or does not fit any more."""
    if not isinstance(case.recording, Recording) or case.recording.duration_s > LONGEST_S:
        return b""
    try:
        encoded = page.flac(recordings.load(case.utterance, SOUND_HZ), SOUND_HZ)
    except AudioError:
        return b""
    return encoded if len(encoded) <= most_bytes else b""


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
    cells.append(page.text(case.text, long=True))
    if judged:
        cells.append(page.text(case.judged.heard if case.judged else "", long=True))
    return cells
