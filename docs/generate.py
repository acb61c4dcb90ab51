"""Write docs/recipes.md and docs/commands.md from the code: python docs/generate.py

A key's meaning is the comment beside or above it, a command's that of its --help. The tests compare
the pages with what this gives.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from speechrnn import cli
from speechrnn.recipe import LanguageRecipe, Recipe
from speechrnn.section import Ramp, Section

ROOT = Path(__file__).resolve().parents[1]

RECIPES = """\
# Recipes

<!-- Written by docs/generate.py: change the comments in the code and run it again. -->

A recipe is a YAML file that describes a run: which recordings, what network, how it is trained.
Three keys are needed (`name`, `output` and `data.manifest`); all others have the defaults below.

```yaml
name: mine
output: runs/mine
data:
  manifest: mine.csv
```

Any value can be given on the command line too, in YAML: `training.epochs=20`,
`augment.speed=[0.9,1.1]`, `data.alphabet=null`. A key that does not exist, or a value out of its
range, ends with exit code 2 and a message that names the key and the nearest one that is known.
Paths are relative to the folder in which the command runs.

*Range* is `[low, high]`, of uniform draws. A *ramp* is a plain value, or `{start: ..., end: ...,
by_epoch: N}`, which moves in a straight line ([augmentation](augmentation.md)).

Recipes that come with speechrnn; each opens with its command, its cost and its result:

"""

COMMANDS = """\
# Commands

<!-- Written by docs/generate.py: change the help in the code and run it again. -->

`speechrnn COMMAND --help` says the same. MODEL is a run directory, a SavedModel directory or a
`.tflite` file, everywhere. Answers go to stdout, progress and complaints to stderr.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the machine refused: space, permission, memory |
| 2 | the call is wrong: an unknown option or recipe key, an extra that is not installed |
| 3 | bad data: what could be done is done, the rest is named |
| 4 | bad model: missing, damaged or foreign |
| 130 | interrupted |
| 143 | asked to end (SIGTERM) |
"""


def recipes() -> str:
    """Every key of every section: its type, default and meaning."""
    parts = [RECIPES + "\n".join(_files()) + "\n"]
    parts += _section("The recipe of a recogniser", "", Recipe)
    parts.append(
        "\n## The recipe of a language model\n\n`name`, `output`, `corpus`, `licence`, `seed`, "
        "`training` and `text` as above, and these sections ([more](character_lm.md)).\n"
    )
    for name in ("data", "language_model"):
        kind = LanguageRecipe.model_fields[name].annotation
        parts += _section(f"`{name}` of a language model", f"{name}.", kind)
    return "\n".join(parts)


def _files() -> Iterator[str]:
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        if "\noutput:" in text:  # a recipe
            yield f"- [`{name}`](../{name}): {text.splitlines()[0].lstrip('# ')}"


def _section(title: str, prefix: str, kind: Any) -> list[str]:
    """A heading, a table of the keys, and the sections within."""
    hints, notes = annotations(kind), meanings(kind)
    names = sorted(fields(kind), key="training".__eq__)  # which is long, and last
    within = {name: inner for name in names if (inner := _inner(hints[name]))}
    lines = [f"\n{'##' if not prefix else '###'} {title}\n"]
    if prefix:
        lines.append(_about(kind) + "\n")
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name in names:
        key = f"`{prefix}{name}`"
        if name in within:
            default = "off" if fields(kind)[name] is None else ""
            link = f"[section](#{_anchor(prefix + name)})"
            lines.append(
                f"| {key} | {link} | {default} | {notes.get(name) or _about(within[name])} |"
            )
        else:
            shown = _shown(fields(kind)[name])
            lines.append(f"| {key} | {written(hints[name])} | {shown} | {notes.get(name, '')} |")
    for name, inner in within.items():
        lines += _section(f"`{prefix}{name}`", f"{prefix}{name}.", inner)
    return lines


def _about(kind: Any) -> str:
    """The first paragraph about a section."""
    return inspect.cleandoc(kind.__doc__).split("\n\n")[0].replace("\n", " ").replace("``", "`")


def _anchor(key: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return key.replace(".", "").lower()


NEEDED = object()


def fields(kind: Any) -> dict[str, Any]:
    """The names of a section's keys and their defaults; NEEDED where there is none."""
    if dataclasses.is_dataclass(kind):
        return {
            each.name: NEEDED if each.default is dataclasses.MISSING else each.default
            for each in dataclasses.fields(kind)
        }
    return {
        name: NEEDED if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in kind.model_fields.items()
    }


def annotations(kind: Any) -> dict[str, Any]:
    """The types of a section's keys."""
    if dataclasses.is_dataclass(kind):
        return get_type_hints(kind, include_extras=True)
    return {name: field.rebuild_annotation() for name, field in kind.model_fields.items()}


def meanings(kind: Any) -> dict[str, str]:
    """The comments beside or right above the fields of a class and of those it is made from."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each.__module__.startswith("speechrnn."):
            found |= _comments(textwrap.dedent(inspect.getsource(each)))
    return found


def _comments(source: str) -> dict[str, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body[0].body:
        if not isinstance(node, ast.AnnAssign):
            continue
        above = node.lineno - 1
        while above in comments and lines[above - 1].lstrip().startswith("#"):
            above -= 1
        numbers = [*range(above + 1, node.end_lineno + 1)]
        if said := " ".join(comments[n] for n in numbers if n in comments):
            found[node.target.id] = said.replace("|", r"\|")
    return found


def _inner(hint: Any) -> Any:
    """The section that a field holds, or None."""
    for each in (hint, *get_args(hint)):
        if not isinstance(each, type) or issubclass(each, Ramp):
            continue
        if dataclasses.is_dataclass(each) or issubclass(each, Section):
            return each
    return None


PLAIN = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "`true` or `false`",
    Path: "path",
    type(None): "`null`",
    tuple[float, float]: "range",
    tuple[int, ...]: "list of whole numbers",
    tuple[Path, ...]: "list of paths",
}
LIMITS = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}


def written(hint: Any) -> str:
    """A type in words, with its limits."""
    if hint in PLAIN:
        return PLAIN[hint]
    if get_origin(hint) is Annotated:
        inner, *extra = get_args(hint)
        limits = [m for e in extra for m in (e.metadata if isinstance(e, FieldInfo) else [e])]
        told = [f"{LIMITS[k]} {getattr(m, k)}" for m in limits for k in LIMITS if hasattr(m, k)]
        return ", ".join([written(inner), " ".join(told)]) if told else written(inner)
    if get_origin(hint) is Literal:
        return " or ".join(f"`{each}`" for each in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(written(each) for each in get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Ramp):
        return f"{written(hint.__pydantic_generic_metadata__['args'][0])} or ramp"
    raise TypeError(f"docs/generate.py has no words for the type {hint}; add them to PLAIN")


def _shown(default: Any) -> str:
    if default is NEEDED:
        return "**needed**"
    if isinstance(default, Ramp):
        default = default.start
    if isinstance(default, bool) or default is None:
        return f"`{str(default).lower() if default is not None else 'null'}`"
    if isinstance(default, tuple):
        return f"`[{', '.join(f'{each:g}' for each in default)}]`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def commands() -> str:
    """Every command: its usage, help, arguments, options and examples."""
    parts = [COMMANDS]
    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        shown = [each for each in command.params if each.name != "help" and not each.hidden]
        arguments = [_argument(each) for each in shown if each.param_type_name == "argument"]
        usage = " ".join(["speechrnn", name, *arguments, "[OPTION ...]"])
        parts.append(f"\n## {name}\n\n```text\n{usage}\n```\n\n{_plain(command.help)}\n")
        parts += ["| | |\n|---|---|", *map(_row, shown)]
        if command.epilog:
            examples = [line for line in command.epilog.split("\n\n") if line != "Examples:"]
            parts.append("\n```\n" + "\n".join(examples) + "\n```")
    return "\n".join(parts) + "\n"


def _argument(each: Any) -> str:
    name = (each.metavar or each.name or "").removesuffix("...").strip("[]").upper()
    many = " ..." if each.nargs == -1 or getattr(each, "multiple", False) else ""
    return f"{name}{many}" if each.required else f"[{name}{many}]"


def _row(each: Any) -> str:
    name, default = _argument(each), ""
    if each.param_type_name == "option":
        # Not the type's name, for which every version of typer has another word.
        words = "" if each.is_flag else f" {each.metavar or each.opts[-1].lstrip('-').upper()}"
        name = ", ".join([*each.opts, *each.secondary_opts]) + words
        if each.default not in (None, False, True) and not callable(each.default):
            default = f" Default: {each.default}."
    name, told = (part.replace("|", r"\|") for part in (name, _plain(each.help) + default))
    return f"| `{name}` | {told} |"


def _plain(text: str | None) -> str:
    """Help without the marks that keep rich from reading brackets."""
    return inspect.cleandoc(text or "").replace("\\[", "[")


PAGES = {"recipes.md": recipes, "commands.md": commands}

if __name__ == "__main__":
    for page, text in PAGES.items():
        (ROOT / "docs" / page).write_text(text(), encoding="utf-8")
