"""The pages: their links lead somewhere, their commands have the options that they show."""

from __future__ import annotations

import re
import runpy
import shlex

import pytest
import typer
from conftest import REPOSITORY
from shown import PAGES, commands

from speechrnn import cli

GENERATE = REPOSITORY / "docs" / "generate.py"


def shown():
    """Every call of the command on a page: the page's name and the words behind `speechrnn`."""
    for line, page in commands().items():
        for part in line.split("|"):
            if call := re.match(r"speechrnn (.*)", part.strip()):
                yield page, shlex.split(call[1].split(" > ")[0])


@pytest.mark.parametrize(("page", "words"), [*shown()], ids=lambda v: str(v)[:40])
def test_a_command_on_a_page_has_the_options_that_it_shows(page, words):
    commands = typer.main.get_command(cli.app).commands
    words = words[: words.index("--")] if "--" in words else words  # what follows is another's
    assert words[0] in commands, f"{page}: no command {words[0]}"
    known = {option for each in commands[words[0]].params for option in each.opts}
    strange = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)} - known
    assert not strange, f"{page}: {words[0]} has no {strange}"


def test_commands_are_found_on_the_pages():
    """The test above would also pass where none is."""
    assert len({words[0] for _, words in shown()}) >= 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_files_that_are_there_and_nothing_is_left_to_fill_in(page):
    text = page.read_text(encoding="utf-8")
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [t for t in targets if t and not t.startswith(("http:", "https:"))]
    missing = [t for t in local if not (page.parent / t).exists()]
    assert not missing, f"{page.name}: {missing}"
    assert not re.findall(r"^[A-Z]{3,}$|TODO|FIXME", text, re.MULTILINE)


@pytest.fixture(scope="module")
def generated():
    return runpy.run_path(str(GENERATE))


@pytest.mark.parametrize("name", ["recipes.md", "commands.md"])
def test_a_page_made_from_the_code_is_as_the_code_is(name, generated):
    there = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")
    assert there == generated["PAGES"][name](), "run: python docs/generate.py"


def test_every_key_of_a_recipe_has_its_meaning_beside_it(generated):
    rows = re.findall(r"^\| `(\S+)` \|.*\| (.*) \|$", generated["recipes"](), re.M)
    assert len(rows) > 80
    assert [key for key, meaning in rows if not meaning.strip()] == []


def test_every_command_is_on_the_page_of_commands(generated):
    headings = re.findall(r"^## (\w+)$", generated["commands"](), re.M)
    assert headings == [*typer.main.get_command(cli.app).commands]
