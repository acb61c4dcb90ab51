"""The speechrnn command: each subcommand parses, makes one library call, and prints.

stdout is the answer, text or with --json one JSON object; stderr is for people. Exit codes:
0 ok, 1 the machine refused (no space, no permission, no memory), 2 usage, 3 bad data, 4 bad
model, 130 interrupted, 143 asked to end (SIGTERM).
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from speechrnn.errors import MissingExtra, SpeechRNNError, Stopped

if TYPE_CHECKING:
    from speechrnn.recipe import LanguageRecipe, Recipe

app = typer.Typer(
    name="speechrnn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a recurrent CTC speech recogniser on your own recordings; ship it as one file.",
    epilog="MODEL is a run directory, a SavedModel directory or a .tflite file, everywhere.\n\n"
    "A first recogniser in minutes: make quickstart. Your own recordings: prepare and train with "
    "data.manifest naming a CSV of path and text, then evaluate, export and transcribe.\n\n"
    "Exit codes: 0 ok, 1 the machine refused (space, permission, memory), 2 usage, 3 bad data, "
    "4 bad model, 130 interrupted, 143 asked to end.",
)
console = Console(stderr=True, soft_wrap=True)

REFUSED, INTERRUPTED, ASKED_TO_END = 1, 130, 143  # exit codes beside those of ``errors``
SHORT_WAIT = 2.0  # seconds without a bar

RecipeFile = Annotated[Path, typer.Argument(help="A YAML recipe, such as configs/an4.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[key=value]...", help="Values to change, as training.epochs=3."),
]
ModelPath = Annotated[Path, typer.Argument(help="A run, a SavedModel or a .tflite file.")]
CorpusName = Annotated[
    str,
    typer.Argument(
        metavar="MANIFEST",
        help="Recordings and transcripts: a TSV or CSV, or any corpus of docs/corpora.md.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def main() -> None:
    """Run the command; errors that have a cause outside become a message and an exit code."""
    try:
        app()
    except Stopped as stop:
        console.print(str(stop), markup=False, highlight=False)
        sys.exit(stop.exit_code)
    except SpeechRNNError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except refusals() as error:
        complain(
            f"the machine refused: {str(error) or type(error).__name__}; check the path, its "
            "permissions, and the free space and memory"
        )
        sys.exit(REFUSED)


@contextmanager
def orderly_end() -> Iterator[None]:
    """A request to end (SIGTERM) unwinds what is within, which cleans up, and ends with 143."""

    def end(*_: object) -> None:
        raise SystemExit(ASKED_TO_END)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def refusals() -> tuple[type[Exception], ...]:
    """What missing space, memory and permission raise; TensorFlow has classes of its own."""
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)
    if errors is None:
        return (OSError, MemoryError)
    return (OSError, MemoryError, errors.ResourceExhaustedError, errors.PermissionDeniedError)


def complain(message: str) -> None:
    console.print(f"error: {message}", style="red", markup=False, highlight=False)


def answer(data: dict[str, Any] | list[Any], text: str, as_json: bool) -> None:
    print(json.dumps(data, ensure_ascii=False, default=str) if as_json else text)


def load_recipe(path: Path, overrides: list[str] | None) -> Recipe:
    from speechrnn import recipe

    return recipe.load(path, overrides or [])


def load_any_recipe(path: Path, overrides: list[str] | None) -> Recipe | LanguageRecipe:
    from speechrnn import recipe

    return recipe.load_any(path, overrides or [])


def examples(*lines: str) -> str:
    """The end of a command's help; typer keeps paragraphs apart, and nothing else."""
    return "\n\n".join(["Examples:", *lines])


def needs_training_extra(feature: str, module: str) -> Any:
    """Import a module of the training side; names the extra where that is not installed."""
    return needs_extra(feature, "train", module)


def needs_extra(feature: str, extra: str, module: str) -> Any:
    """Import a module that wants packages of an extra; names it where that is not installed."""
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "speechrnn":
            raise
        raise MissingExtra(feature, extra) from error
