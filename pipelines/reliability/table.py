"""The reliability table: every experiment here in full, and docs/reliability.md told the results.

    python pipelines/reliability/table.py                 # all of them, about an hour
    python pipelines/reliability/table.py kills workers   # only rows whose command says so

A row is a promise, the command that tries it, and the last line that the command printed: how many
were tried, and what came of it. Exits 1 if a promise was broken; the row says so too.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from speechrnn.files import write_atomically

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reliability.md"
HEADER = "| promise | command | tried: result | minutes |\n|---|---|---|---:|\n"
BROKEN = "**broken:** "

_ROW = re.compile(
    r"^\| (?P<promise>.+?) \| `(?P<command>.+)` \| *(?P<result>.*?) *\| *(?P<minutes>[\d.]*) *\|$"
)


def rows(page: str) -> list[re.Match[str]]:
    """The rows of the page's table."""
    return [found for line in page.splitlines() if (found := _ROW.match(line))]


def with_result(page: str, command: str, result: str, minutes: str) -> str:
    """The page with this command's row filled in anew."""
    lines = []
    for line in page.splitlines():
        found = _ROW.match(line)
        if found and found["command"] == command:
            line = f"| {found['promise']} | `{command}` | {result} | {minutes} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def tried(command: str) -> tuple[str, bool]:
    """Run a row's command -> the last line it printed, and whether the promise was kept."""
    words = command.split()
    if words[0] == "python":
        words[0] = sys.executable
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().splitlines() or ["nothing was printed"]
    return lines[-1].replace("|", "/"), done.returncode == 0


def main() -> None:
    """Run the rows that are asked for, the page being rewritten after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="run only commands that hold one of these words")
    asked = parser.parse_args()
    console, kept_all = Console(stderr=True), True
    for row in rows(PAGE.read_text(encoding="utf-8")):
        command = row["command"]
        if asked.words and not any(word in command for word in asked.words):
            continue
        console.rule(command)
        started = time.monotonic()
        result, kept = tried(command)
        kept_all &= kept
        minutes = f"{(time.monotonic() - started) / 60:.1f}"
        page = PAGE.read_text(encoding="utf-8")
        said = result if kept else BROKEN + result
        write_atomically(PAGE, with_result(page, command, said, minutes).encode())
        print(f"{command}: {said}")
    sys.exit(0 if kept_all else 1)


if __name__ == "__main__":
    main()
