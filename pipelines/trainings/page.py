"""A table in a page of Markdown, between two marks."""

from __future__ import annotations

from pathlib import Path

from speechrnn.errors import DataError


def between(page: str, begin: str, end: str, content: str, source: Path) -> str:
    """``page`` with ``content`` in place of what stands between its marks.

    Raises:
        DataError: it has no such marks; the error names ``source``, where it is from.
    """
    before, found, rest = page.partition(begin)
    _, ended, behind = rest.partition(end)
    if not (found and ended):
        raise DataError(f"{source} has no lines {begin} and {end}; write them where the table goes")
    return f"{before}{begin}{content}{end}{behind}"
