"""The machine that was measured on: what figures depend on, and nothing that names its owner."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

# Extensions of the instruction set that decide how fast products are, x86-64's and then arm64's.
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
         "asimd", "asimddp", "i8mm", "bf16", "sve")  # fmt: skip
QUIET = 0.5  # processes that run or wait, over a minute, on a machine that does nothing else
BFLOAT16 = {"avx512_bf16", "amx_bf16"}
PACKAGES = (
    *("numpy", "tensorflow", "keras", "ai-edge-litert", "librosa", "flashlight-text"),
    *("torch", "onnxruntime", "pocketsphinx"),
)


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory, system, and whether bfloat16 products are fast."""
    model, known = _processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": model,
        "architecture": platform.machine(),
        "flags": [flag for flag in FLAGS if flag in known],
        "cores": cores,
        "memory_bytes": _memory(),
        "system": f"{_distribution()}, {platform.system()} {_release()}",
        "bfloat16": sorted(known & BFLOAT16),
    }


def versions() -> dict[str, str]:
    """Python, and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def described(machine: dict[str, Any], versions: dict[str, str]) -> str:
    """Two sentences for a page."""
    flags = f" ({', '.join(machine['flags'])})" if machine["flags"] else ""
    memory = f"{machine['memory_bytes'] / 1e9:.0f} GB of memory"
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['processor']}, {machine['architecture']}{flags}, {machine['cores']} cores, "
        f"{memory}, {machine['system']}. Versions: {packages}."
    )


def busy(load: float) -> str:
    """A sentence where ``load``, the processes that ran before the measurement, says so."""
    if load < QUIET:
        return ""
    return (
        f"**Other programs kept {load:.0f} processes running: these times are too long, and the "
        "ratios rough.**"
    )


def _processor() -> tuple[str, set[str]]:
    """Its name and its flags, as Linux tells them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    name = model[1] if model else platform.processor() or platform.machine()
    return name, set(flags[1].split()) if flags else set()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown system"


def _release() -> str:
    """The kernel's version without what its builder appended."""
    return platform.release().split("-")[0]
