"""Parts of a self-contained HTML page: the document, tables that sort, bars with intervals.

Everything a page shows is in its one file, and its content security policy lets nothing else in:
no network, and no script or style but those written here, whatever a transcript holds.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from speechrnn import __version__, audio

NARROW = 4  # columns that fit a phone side by side
SHORT = 20  # rows of a table that are found without a search

_STYLE, _SCRIPT = (
    Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
)


def document(title: str, body: str) -> bytes:
    """A title, as text, and a body, as HTML -> the page, UTF-8."""
    policy = (
        f"default-src 'none'; style-src '{_hash(_STYLE)}'; script-src '{_hash(_SCRIPT)}'; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
<footer>Written by speechrnn {escape(__version__)}. This page needs no network.</footer>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
""".encode()


def _hash(source: str) -> str:
    """As a content security policy names an inline script or style."""
    return "sha256-" + base64_of(hashlib.sha256(source.encode()).digest())


def section(title: str, content: str, lead: str = "") -> str:
    """A titled part of a page; ``content`` is HTML, ``lead`` text."""
    said = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(title)}</h2>{said}\n{content}</section>\n"


def figures(items: Iterable[tuple[str, str, str]]) -> str:
    """(name, value, remark), all text -> the figures that a page opens with."""
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        f'<dd class="remark">{escape(remark)}</dd></div>'
        for name, value, remark in items
    )
    return f'<dl class="figures">{cards}</dl>'


@dataclass(frozen=True)
class Cell:
    """``shown`` is HTML; ``value`` is what a column is sorted by, where that is a number; what is
    ``long`` has a line of its own on a phone."""

    shown: str
    value: float | None = None
    long: bool = False


def text(content: str, long: bool = False) -> Cell:
    """Text of any script, in its own direction."""
    return Cell(f'<span dir="auto">{escape(content)}</span>', long=long)


def number(value: float | None, digits: int = 0, scale: float = 1.0, unit: str = "") -> Cell:
    """A number, or a dash where there is none; infinity sorts last."""
    if value is None:
        return Cell("–", -1e9)
    if not math.isfinite(value):
        return Cell("∞", 1e9)
    return Cell(f"{scale * value:.{digits}f}{unit}", value)


def percent(fraction: float, digits: int = 2) -> str:
    """As people read a rate; a rate of errors in nothing is infinite."""
    return f"{100 * fraction:.{digits}f} %" if math.isfinite(fraction) else "∞"


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    caption: str,
    marked: Sequence[bool] | None = None,
    filter_name: str = "",
) -> str:
    """A table with sortable columns, and a search where it is long; ``marked`` rows are those
    that the check box ``filter_name`` leaves."""
    body = []
    for index, row in enumerate(rows):
        cells = "".join(_cell(name, cell) for name, cell in zip(columns, row, strict=True))
        flag = " data-marked" if marked and marked[index] else ""
        body.append(f'<tr role="row"{flag}>{cells}</tr>')
    first = rows[0] if rows else [Cell("")] * len(columns)
    heads = "".join(_head(name, cell) for name, cell in zip(columns, first, strict=True))
    width = " wide" if len(columns) > NARROW else ""
    return f"""<div class="listing{width}">{_tools(len(rows), filter_name)}
<table role="table"><caption>{escape(caption)}</caption>
<thead role="rowgroup"><tr role="row">{heads}</tr></thead>
<tbody role="rowgroup">
{chr(10).join(body)}
</tbody></table></div>
"""


def _head(name: str, first: Cell) -> str:
    kind = "" if first.value is None else ' class="number"'
    return (
        f'<th role="columnheader" scope="col" aria-sort="none"{kind}>'
        f'<button type="button">{escape(name)}</button></th>'
    )


def _tools(rows: int, filter_name: str) -> str:
    if rows <= SHORT and not filter_name:
        return ""
    only = (
        f'<label class="only"><input type="checkbox"> {escape(filter_name)}</label>'
        if filter_name
        else ""
    )
    return (
        f'<div class="tools"><label>Search <input type="search"></label>{only}'
        f'<output aria-live="polite">{rows} of {rows}</output></div>'
    )


def _cell(label: str, cell: Cell) -> str:
    kind = ' class="long"' if cell.long else ""
    if cell.value is not None:
        kind = f' data-value="{cell.value:.6g}" class="number"'
    return f'<td role="cell" data-label="{escape(label)}"{kind}>{cell.shown}</td>'


def flac(waveform: np.ndarray, sample_rate: int) -> bytes:
    """(samples,) -> a recording of 16 bits, lossless and half the size."""
    written = io.BytesIO()
    soundfile.write(written, audio.to_pcm16(waveform), sample_rate, format="FLAC")
    return written.getvalue()


def player(recording: bytes, name: str) -> str:
    """A FLAC recording within the page."""
    return (
        f'<audio controls preload="none" aria-label="{escape(name)}" '
        f'src="data:audio/flac;base64,{base64_of(recording)}"></audio>'
    )


class Drawing(Protocol):
    """A PNG of ``width`` times ``height`` pixels, whose time axis lies between ``left`` and
    ``right``, as shares of the width."""

    @property
    def png(self) -> bytes: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def left(self) -> float: ...
    @property
    def right(self) -> float: ...


def figure(drawn: Drawing, seconds: float, name: str, shown: str) -> str:
    """A picture of something ``shown`` over time, with what the script needs to tell places from
    times; its size is told in advance, so that nothing moves when it is drawn."""
    return (
        f'<div class="picture" tabindex="0" role="group" aria-label="picture of {escape(name)}">'
        f'<div data-left="{drawn.left:.5f}" data-right="{drawn.right:.5f}" '
        f'data-seconds="{seconds:.4f}"><img width="{drawn.width}" height="{drawn.height}" '
        f'alt="{escape(shown)} of {escape(name)}" decoding="async" loading="lazy" '
        f'src="data:image/png;base64,{base64_of(drawn.png)}"></div></div>'
    )


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


@dataclass(frozen=True)
class Bar:
    """A rate and what it is compared with, its interval say, as a row of a plot."""

    name: str
    value: float
    low: float
    high: float
    remark: str


def bars(rows: Sequence[Bar], caption: str) -> str:
    """Rates in percent, one under another: a bar, a thin line from ``low`` to ``high``, and
    numbers; the caption says what the line is."""
    finite = [v for row in rows for v in (row.value, row.high) if math.isfinite(v)]
    most = max([*finite, 0.01])
    lines = "".join(
        f'<tr><th scope="row" dir="auto" title="{escape(row.name)}">{escape(row.name)}</th>'
        f"<td>{_bar(row, most)}</td>"
        f'<td class="number">{number(row.value, 1, 100, " %").shown}</td>'
        f'<td class="remark">{escape(row.remark)}</td></tr>'
        for row in rows
    )
    return (
        f'<table class="bars"><caption>{escape(caption)}; the full width is {100 * most:.0f} %'
        f"</caption><tbody>{lines}</tbody></table>"
    )


def _bar(row: Bar, most: float) -> str:
    value, low, high = (100 * min(v, most) / most for v in (row.value, row.low, row.high))
    return (
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="bar" x="0" y="1" width="{value:.2f}" height="8"/>'
        f'<path class="interval" d="M{low:.2f} 5H{high:.2f}M{low:.2f} 2V8M{high:.2f} 2V8"/></svg>'
    )


def histogram(name: str, values: Sequence[float], bins: int = 40) -> str:
    """How values are spread: a picture, with the least, the middle and the most in words."""
    counts, _ = np.histogram(values, bins=bins)
    top = max(1, int(counts.max()))
    columns = "".join(
        f'<rect class="bar" x="{i}.05" y="{100 - 100 * count / top:.1f}" width="0.9" '
        f'height="{100 * count / top:.1f}"/>'
        for i, count in enumerate(counts)
        if count
    )
    least, middle, most = (f"{np.percentile(values, p):.4g}" for p in (0, 50, 100))
    return (
        f'<figure class="histogram"><figcaption>{escape(name)}</figcaption>'
        f'<svg viewBox="0 0 {bins} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(name)}: {least} to {most}, middle {middle}">{columns}</svg>'
        f'<div class="scale"><span>{least}</span><span>middle {middle}</span>'
        f"<span>{most}</span></div></figure>"
    )
