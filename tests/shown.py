"""What the pages show: their fenced blocks, and the commands in those without a language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from conftest import REPOSITORY

PAGES = sorted(
    [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
        *(REPOSITORY / "docs").glob("*.md"),
        REPOSITORY / "pipelines" / "cluster" / "README.md",
        REPOSITORY / "speechrnn" / "pretrained" / "README.md",
    ]
)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language; "" for those that name none, which are for a shell."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for named, text in found if named == language]


def lines(page: Path) -> Iterator[str]:
    """Shell commands without comments, and `speechrnn` and `python` without their folder."""
    for block in blocks(page, ""):
        waiting = ""
        for line in block.replace("\\\n", " ").splitlines():
            waiting += ("\n" if waiting else "") + re.sub(r"(^|\s)#\s.*", "", line).rstrip()
            if waiting.count("'") % 2 == 0:  # else a quotation goes on in the next line
                if waiting.strip():
                    yield re.sub(r"^\S*/(?=(speechrnn|python) )", "", waiting.strip())
                waiting = ""


def commands() -> dict[str, str]:
    """Every shell command that a page shows, and the first page that does."""
    found: dict[str, str] = {}
    for page in PAGES:
        for line in lines(page):
            found.setdefault(re.sub(" +", " ", line), page.name)
    return found
