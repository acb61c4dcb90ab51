"""The order of the stages, and what may be imported without TensorFlow."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "speechrnn"
STAGES = [
    "errors", "arrays", "files", "specs", "language", "section", "augmentation", "recipe", "text",
    "containers", "audio", "corpora", "features", "data", "layers", "model", "ctc", "decoding",
    "evaluation", "training", "runtime", "export", "cli", "__main__",
]  # fmt: skip
WITHOUT_TENSORFLOW = [
    "errors",
    "arrays",
    "files",
    "specs",
    "language",
    "text",
    "containers",
    "audio",
    "corpora",
    "decoding",
    "runtime",
    "cli",
]
# Runs and SavedModels need TensorFlow; open_model imports this when it is given one.
EXCEPT = "speechrnn.runtime.tensorflow"
HEAVY = ("tensorflow", "keras")
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc"}


def modules():
    """Every module of the package: its path below it, and its dotted name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        below = path.relative_to(PACKAGE).with_suffix("")
        parts = below.parts[:-1] if below.name == "__init__" else below.parts
        yield path, ".".join(["speechrnn", *parts])


def stage(module):
    """speechrnn.data.plan -> data; the package itself has none."""
    return [*module.split("."), ""][1]


def imports(source, module, is_package=False):
    """(line, dotted name) of everything imported anywhere in the source, functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: None if is_package else -1]
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            # `from speechrnn import data` imports a stage, `from speechrnn.data import x` names one
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violations(source, module, is_package=False):
    """Imports of a stage that does not stand above the module's own."""
    own = stage(module)
    for line, name in imports(source, module, is_package):
        other = stage(name)
        if not name.startswith("speechrnn.") or other not in STAGES or other == own:
            continue
        if not own or STAGES.index(other) > STAGES.index(own):
            yield f"{module}, line {line}: imports {name}; {other} stands below {own or 'it'}"


def test_a_module_imports_only_from_stages_above_it():
    found = [
        problem
        for path, module in modules()
        for problem in violations(path.read_text("utf-8"), module, path.name == "__init__.py")
    ]
    assert not found, "\n".join([*found, f"The order is: {' '.join(STAGES)}"])


@pytest.mark.parametrize(
    "source",
    [
        "import speechrnn.training.loop",
        "from speechrnn import training",
        "from speechrnn.training import train",
        "def late():\n    from speechrnn.training.loop import train",
        "if TYPE_CHECKING:\n    import speechrnn.training",
        "from ..training import loop",
        "from .. import training",
    ],
)
def test_an_import_from_below_is_found_in_every_form(source):
    assert [*violations(source, "speechrnn.data.plan")]
    assert not [*violations(source, "speechrnn.export.tflite")]


def test_every_module_belongs_to_a_stage():
    strays = {module for _, module in modules() if stage(module) not in ["", *STAGES]}
    assert not strays, f"{strays} are in no stage: {' '.join(STAGES)}"


def test_every_module_is_named_after_what_it_holds():
    vague = {module for _, module in modules() if VAGUE & set(module.split("."))}
    assert not vague, f"{vague}: a module is named after the stage it is"


def device_modules():
    named = [module for _, module in modules() if stage(module) in ["", *WITHOUT_TENSORFLOW]]
    return [module for module in named if module != EXCEPT]


@pytest.mark.parametrize("name", ["", *WITHOUT_TENSORFLOW])
def test_a_stage_for_the_device_exists(name):
    assert any(stage(module) == name for module in device_modules()), f"no stage {name!r}"


def test_every_file_beside_the_code_is_packed(monkeypatch):
    """An installed copy has the model, and the page's style and script."""
    given = {}
    monkeypatch.setattr("setuptools.setup", given.update)
    runpy.run_path(str(PACKAGE.parent / "setup.py"))
    patterns = given["package_data"]["speechrnn"]
    packed = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    here = {p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {p for p in here if p.suffix != ".py"} == packed
    assert any(p.suffix == ".tflite" for p in packed)


FORBID = f"""
import importlib, sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            # not an ImportError, which an optional import would swallow
            raise RuntimeError(f"{{name}} must not be imported here")

sys.meta_path.insert(0, Forbid())
"""


def test_the_device_side_imports_neither_tensorflow_nor_keras():
    script = f"{FORBID}\nfor name in {device_modules()!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_import_of_tensorflow_is_found_even_where_it_is_optional():
    script = f"{FORBID}\ntry: import tensorflow\nexcept ImportError: pass"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "tensorflow must not be imported here" in done.stderr
