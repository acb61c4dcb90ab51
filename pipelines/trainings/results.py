"""The results file: a JSON line for each training that is done, in the order they ended."""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path
from typing import Any

from speechrnn.errors import DataError, RecipeError
from speechrnn.files import write_atomically

Line = dict[str, Any]


def read(path: Path, keys: Set[str]) -> list[Line]:
    """All lines, each of which has these keys at least; none where there is no file.

    Raises:
        DataError: a line is damaged.
    """
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            if not keys <= line.keys():
                raise ValueError("not of a training")
        except (ValueError, AttributeError) as error:
            raise DataError(
                f"{path}, line {number} is no result ({error}); delete that line, and its training "
                "is done again"
            ) from error
        lines.append(line)
    return lines


def of_settings(path: Path, keys: Set[str], settings: str) -> list[Line]:
    """All lines of a file that holds results of these settings only.

    Raises:
        RecipeError: it holds others.
    """
    lines = read(path, keys)
    others = {line["settings"] for line in lines} - {settings}
    if others:
        raise RecipeError(
            f"{path} holds results of other settings ({', '.join(sorted(others))}) than these "
            f"({settings}): another recipe, overrides or corpus, which no table can mix. Name "
            "another file with --results, or delete this one to begin anew."
        )
    return lines


def append(path: Path, line: Line) -> None:
    """Add a line: the file has it whole or not at all, whenever this is stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else b""
    write_atomically(path, before + f"{json.dumps(line)}\n".encode())
