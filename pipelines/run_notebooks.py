"""Execute the notebooks anew and keep what they print and draw.

    python pipelines/run_notebooks.py                                   # all, some 15 minutes
    python pipelines/run_notebooks.py notebooks/to_the_device.ipynb     # one
    python pipelines/run_notebooks.py --small                           # try all, write nothing

With SPEECHRNN_DATA naming a folder that holds an4/manifest.tsv they use recordings of people. Each
notebook runs in an empty folder. A file is written when its last cell has run, with the sha256 of
the code that its outputs are of. What libraries write past Python to stderr goes to this script's.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from speechrnn.files import write_atomically

FOLDER = Path(__file__).parent.parent / "notebooks"
SMALL = "SPEECHRNN_NOTEBOOK_SMALL"
STAMP = "speechrnn"  # the key of our own among a notebook's metadata
CELL_SECONDS = 1800


def sources_sha256(notebook: Any) -> str:
    """One hash of the sources of the code cells: equal exactly where these are."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def in_256_colours(png: str) -> str:
    """A picture in base64 -> the same in a third of the size; nobody sees the difference."""
    smaller = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return base64.b64encode(smaller.getvalue()).decode()


def shrink(notebook: Any) -> None:
    """Make every picture among the outputs smaller."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = in_256_colours(output.data["image/png"])


def executed(path: Path) -> Any:
    """A notebook -> itself, executed from its first cell to its last one by this interpreter.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as empty:
        NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": empty}},
            # TensorFlow's greetings come from C++ and are no part of what a cell has to say.
            extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        ).execute()
    shrink(notebook)
    # The interpreter's version would be another in every file.
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata[STAMP] = {"executed_sha256": sources_sha256(notebook)}
    return notebook


def main(paths: Sequence[Path], small: bool) -> None:
    os.environ[SMALL] = "1" if small else "0"
    for path in paths or sorted(FOLDER.glob("*.ipynb")):
        started = time.perf_counter()
        notebook = executed(path)
        if not small:
            write_atomically(path, f"{nbformat.writes(notebook)}\n".encode())
        seconds = time.perf_counter() - started
        print(f"{path.name}: {seconds:.0f} s{', not written' if small else ''}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    parser.add_argument(
        "--small", action="store_true", help="few recordings, few epochs; writes nothing"
    )
    arguments = parser.parse_args()
    try:
        main(arguments.notebooks, arguments.small)
    except CellExecutionError as error:
        print(f"error: a cell failed\n{error}", file=sys.stderr)
        sys.exit(1)
