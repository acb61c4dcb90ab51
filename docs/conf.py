"""The documentation site: `make docs` builds it into build/docs, any warning being an error."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from speechrnn import __version__  # noqa: E402

project = "speechrnn"
author = "the speechrnn contributors"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["images"]
html_theme = "furo"
html_title = f"speechrnn {release}"

myst_heading_anchors = 4
# Examples in pages are YAML and C too; what Pygments cannot read is shown as it is.
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

nitpicky = True
# Others' objects: their inventories are on the network, which building this must not need.
nitpick_ignore_regex = [
    (r"py:.*", rf"({package})(\..*)?")
    for package in (
        "np|numpy|tf|tensorflow|keras|pydantic|optuna|flashlight|matplotlib|abc|argparse",
        "collections|contextlib|dataclasses|io|os|pathlib|typing|annotated_types|typing_extensions",
        "int|float|str|bool|bytes|list|dict|tuple|set|frozenset|object|type|None|ellipsis|property",
        r"\w*Error|\w*Exception|Exception|Path|Any|Callable|Iterator|Iterable|Mapping|Sequence",
        "Annotated|Literal|Protocol|(Tuple\[)?fl::.*",
        # Parts of these, which nobody makes or asks for by himself.
        r"speechrnn\.(containers|data\.augment|runtime\.reading|evaluation\.(transcripts|worst|recordings))",
        r"speechrnn\.(layers\.rnn\.KerasRecurrence|section\.Value|layers\.scan\..*|\w+\._\w+)",
    )
]


def _for_the_site(text: str, folder: Path) -> str:
    """A page as it is in the repository -> as the site has it.

    On GitHub a link to any file of the repository works. The site has only what is in docs/, so a
    link to another file is shown as that file's path.
    """

    def link(match: re.Match[str]) -> str:
        label, target = match.groups()
        if re.match(r"https?:|mailto:|#", target):
            return match[0]
        name, _, anchor = target.partition("#")
        path = (folder / name).resolve().relative_to(ROOT).as_posix()
        if path == "README.md":
            path = "docs/index.md"
        if path.startswith("docs/"):
            inside = os.path.relpath(ROOT / path, folder if folder != ROOT else ROOT / "docs")
            return f"[{label}]({inside}{anchor and '#' + anchor})"
        return label if path.rstrip("/") in label else f"{label} (`{path}`)"

    return re.sub(r"\[([^\[\]]+)\]\(([^()\s]+)\)", link, text)


def _read(app: Any, name: str, source: list[str]) -> None:
    page = Path(app.srcdir, name)
    if name == "index":
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        toctrees = source[0][source[0].index("```{toctree}") :]
        source[0] = _for_the_site(readme, ROOT) + "\n" + toctrees
    else:
        source[0] = _for_the_site(source[0], page.parent)


def setup(app: Any) -> None:
    app.connect("source-read", _read)
