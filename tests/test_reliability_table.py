"""The table of docs/reliability.md: its commands are there, and results go into their own rows."""

from __future__ import annotations

import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "pipelines" / "reliability"))

import table

ROWS = table.rows(table.PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", [row["command"] for row in ROWS])
def test_a_row_names_a_script_and_options_that_are_there(command):
    _, script, *words = command.split()
    source = (REPOSITORY / script).read_text(encoding="utf-8")
    strange = [word for word in words if word.startswith("--") and f'"{word}"' not in source]
    assert not strange


def test_the_table_has_a_row_for_every_script_of_the_folder():
    """Modules without a main are what scripts share."""
    scripts = {
        f"pipelines/reliability/{path.name}"
        for path in (REPOSITORY / "pipelines/reliability").glob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    named = {row["command"].split()[1] for row in ROWS}
    assert scripts - {"pipelines/reliability/table.py"} == named


def test_a_result_goes_into_the_row_of_its_command_alone():
    page = "before\n| one | `python a.py` | | |\n| two | `python a.py --b` | x | 1 |\nafter\n"
    told = table.with_result(page, "python a.py", "3 tried: all held", "0.1")
    assert told == page.replace("`python a.py` | | |", "`python a.py` | 3 tried: all held | 0.1 |")


@pytest.mark.parametrize(("status", "kept"), [(0, True), (1, False)])
def test_the_last_line_and_the_exit_code_are_what_counts(tmp_path, status, kept):
    script = tmp_path / "try.py"
    script.write_text(f"print('noise')\nprint('2 tried: a | b')\nraise SystemExit({status})\n")
    assert table.tried(f"python {script}") == ("2 tried: a / b", kept)
