"""Preparing a corpus while the machine fails.

A prepared corpus is prepared again after most of its recordings changed, and stopped on the way: by
SIGKILL at random moments, by SIGTERM, by a disk that is full, and by an error of every writing
operation in turn. Promised after each:

- the state before is whole: index, report and every shard load, and every byte is as it was;
- nothing that was half written is left once preparing has run to its end;
- the next run ends with the same bytes as one that nothing stopped;
- an error is the class for a machine that refused (exit code 1), and says what to do;
- SIGTERM ends with 143, and no worker process is left.

    python pipelines/reliability/prepare_faults.py --kills 100 --terminations 20 --disks 20
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from noise_corpora import Corpora, finished, make, problems
from rich.console import Console
from rich.progress import Progress

from speechrnn.data.prepare import prepare
from speechrnn.errors import MachineRefused
from speechrnn.recipe import Recipe

# A process that says when its imports are behind it, so that kills fall into the work.
CHILD = """
import os, sys
from speechrnn import recipe
from speechrnn.cli.app import orderly_end
from speechrnn.data.prepare import prepare
if __name__ == "__main__":
    with orderly_end():
        print("ready", flush=True)
        prepare(recipe.load(sys.argv[1]), progress=False)
        os._exit(0)  # outside, a signal would end it as it ends any process
"""
REFUSALS = {errno.ENOSPC: "No space left on device", errno.EACCES: "Permission denied"}


def kills(corpora: Corpora, count: int, seed: int = 0) -> Iterator[list[str]]:
    """SIGKILL at random moments, twice in a row, then a run to the end: the problems of each."""
    rng = random.Random(seed)
    lasted = {workers: _seconds(corpora, workers) for workers in (1, 2)}
    for number in range(count):
        workers = 1 + number % 2
        root = _before(corpora, f"killed{number}")
        found = []
        for _ in range(2):
            child = _start(corpora, root, workers)
            time.sleep(rng.uniform(0, lasted[workers]))
            child.kill()
            child.wait()
            found += problems(root, corpora)
        prepare(corpora.recipe(corpora.later, root), progress=False)
        yield found + _ended(root, corpora)


def terminations(corpora: Corpora, count: int, seed: int = 0) -> Iterator[list[str]]:
    """SIGTERM at random moments with two workers, then a run to the end: the problems of each."""
    rng = random.Random(seed)
    lasted = _seconds(corpora, 2)
    for number in range(count):
        root = _before(corpora, f"terminated{number}")
        child = _start(corpora, root, 2)
        time.sleep(rng.uniform(0, 0.8 * lasted))
        workers = _children(child.pid)
        child.terminate()
        code = child.wait(timeout=60)
        found = problems(root, corpora)
        if code not in (143, 0):  # 0: it was done before the signal came
            found.append(f"exit code {code} after SIGTERM, not 143")
        if left := [pid for pid in workers if _alive(pid)]:
            found.append(f"worker processes outlive it: {left}")
        if partial := list(root.glob(".*.partial")):
            found.append(f"left behind: {partial}")
        prepare(corpora.recipe(corpora.later, root), progress=False)
        yield found + _ended(root, corpora)


def refusals(corpora: Corpora, every: int = 1) -> Iterator[list[str]]:
    """Each writing operation of a run in turn (or ``every`` nth) fails with ENOSPC, then with
    EACCES: the problems of each."""
    for code, words in REFUSALS.items():
        number = 0
        while True:
            root = _before(corpora, f"refused{code}-{number}")
            with _refusing(root, code, number) as asked:
                error = _error(corpora.recipe(corpora.later, root))
            if asked() <= number:
                shutil.rmtree(root)
                break  # it was done before
            found = problems(root, corpora)
            if not isinstance(error, MachineRefused):
                found.append(f"raised {error!r}, not MachineRefused")
            elif words not in str(error) or "prepare again" not in str(error):
                found.append(f"says {error}")
            prepare(corpora.recipe(corpora.later, root), progress=False)
            yield found + _ended(root, corpora)
            number += every


def full_disks(corpora: Corpora, count: int) -> Iterator[list[str]]:
    """The command on disks (tmpfs) with room for more and more of the work: the problems of each.

    Where the system lets no user mount, nothing is tried.
    """
    before, after = (sum(map(len, state.values())) for state in corpora.states)
    for number in range(count):
        # While it runs, the shards of both states lie side by side.
        size = int(before + after * number / count)
        disk = corpora.folder / f"disk{number}"
        disk.mkdir()
        root = _before(corpora, f"small{number}")
        script = (
            'mount -t tmpfs -o size="$1" tmpfs "$2" && cp -r "$3/." "$2" && '
            '{ "$4" -m speechrnn prepare "$5" data.prepared="$2"; code=$?; '
            'rm -r "$3"; cp -r "$2" "$3"; exit $code; }'
        )
        # 4 KiB a file is the least that a page of tmpfs takes.
        room = size + 4096 * 2 * len(corpora.states[1])
        given = [str(room), str(disk), str(root), sys.executable]
        given.append(str(_written(corpora, root, 1)))
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *given],
            capture_output=True,
            text=True,
        )
        found = problems(root, corpora)
        if done.returncode == 1:
            told = done.stderr
            if "No space left on device" not in told or "prepare again" not in " ".join(
                told.split()
            ):
                found.append(f"says {told}")
        elif done.returncode != 3 or number == 0:
            # 3: there was room, which the first disk has not; the broken recording is reported
            found.append(f"exit code {done.returncode}: {done.stderr}")
        if partial := list(root.glob(".*.partial")):
            found.append(f"left behind: {partial}")
        prepare(corpora.recipe(corpora.later, root), progress=False)
        yield found + _ended(root, corpora)


def may_mount() -> bool:
    """Whether a process may have a disk of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = f"mount -t tmpfs tmpfs {folder}"
        given = ["unshare", "--map-root-user", "--mount", "sh", "-c", command]
        try:
            return subprocess.run(given, capture_output=True).returncode == 0
        except OSError:
            return False


@contextmanager
def _refusing(root: Path, code: int, number: int) -> Iterator[Callable[[], int]]:
    """Let the ``number``-th operation that writes below ``root`` fail, and those after it; yields
    what counts the operations asked for."""
    count = 0

    def ask() -> None:
        nonlocal count
        count += 1
        if count > number:
            raise OSError(code, os.strerror(code))

    real_open, real_replace, real_fsync = io.open, os.replace, os.fsync

    def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        writes = set(mode) & set("wa+") and str(file).startswith(str(root))
        if not writes:
            return real_open(file, mode, *rest, **named)
        ask()
        made = real_open(file, mode, *rest, **named)
        return _Refused(made, ask)

    def replaced(*paths: Any) -> None:
        ask()
        real_replace(*paths)

    def synced(descriptor: int) -> None:
        ask()
        real_fsync(descriptor)

    with (
        mock.patch("io.open", opened),
        mock.patch("os.replace", replaced),
        mock.patch("os.fsync", synced),
    ):
        yield lambda: count


class _Refused:
    """A file whose writes may be refused; all else is the file's."""

    def __init__(self, file: Any, ask: Callable[[], None]):
        self._file, self._ask = file, ask

    def write(self, content: Any) -> int:
        self._ask()
        return self._file.write(content)

    def __enter__(self) -> _Refused:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _before(corpora: Corpora, name: str) -> Path:
    """A folder with the earlier corpus prepared."""
    return Path(shutil.copytree(corpora.folder / "earlier-whole", corpora.folder / name))


def _ended(root: Path, corpora: Corpora) -> list[str]:
    found = finished(root, corpora)
    shutil.rmtree(root)
    return found


def _written(corpora: Corpora, root: Path, workers: int) -> Path:
    path = corpora.folder / f"{root.name}.yaml"
    path.write_text(corpora.recipe(corpora.later, root, workers).to_yaml(), encoding="utf-8")
    return path


def _start(corpora: Corpora, root: Path, workers: int) -> subprocess.Popen[str]:
    """A process that prepares the later corpus, once its imports are done."""
    # Killed, it leaves semaphores to a process that collects them and says so on stderr.
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, _written(corpora, root, workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if child.stdout is None or child.stdout.readline() != "ready\n":
        raise RuntimeError("a process that prepares does not start")
    child.stdout.close()
    return child


def _seconds(corpora: Corpora, workers: int) -> float:
    """How long an uninterrupted run takes."""
    root = _before(corpora, f"uninterrupted{workers}")
    child = _start(corpora, root, workers)
    started = time.monotonic()
    if child.wait() != 0:
        raise RuntimeError("an uninterrupted run fails")
    shutil.rmtree(root)
    return time.monotonic() - started


def _error(asked: Recipe) -> BaseException | None:
    try:
        prepare(asked, progress=False)
    except Exception as error:
        return error
    return None


def _children(pid: int) -> list[int]:
    try:
        told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in told.split()]


def _alive(pid: int) -> bool:
    """Running: one that ended may wait for whoever collects it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description="Prepare a corpus while the machine fails.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--terminations", type=int, default=20)
    parser.add_argument("--disks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # temporary folders go too
    with tempfile.TemporaryDirectory() as folder:
        small, large = make(Path(folder) / "small"), make(Path(folder) / "large", 240, 2.0)
        trials = {
            "SIGKILL": kills(large, given.kills, given.seed),
            "SIGTERM": terminations(large, given.terminations, given.seed),
            "full disks": full_disks(small, given.disks if may_mount() else 0),
            "refused operations": refusals(small),
        }
        tried, failed, counts = 0, 0, []
        with Progress(console=Console(stderr=True)) as bar:
            for name, each in trials.items():
                task, here = bar.add_task(name, total=None), 0
                for found in each:
                    here += 1
                    failed += bool(found)
                    bar.update(task, advance=1)
                    for problem in found:
                        bar.console.print(f"{name} {here}: {problem}", markup=False)
                tried += here
                counts.append(f"{here} {name}")
                bar.update(task, total=here)
    held = "all whole, all ended with the same bytes" if not failed else f"{failed} broken"
    print(f"{tried} tried ({', '.join(counts)}): {held}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
