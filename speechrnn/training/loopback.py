"""Several workers on one machine: to see that a cluster's set-up works, and for tests of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def tf_configs(hosts: Sequence[str]) -> list[str]:
    """The TF_CONFIG of each worker at these addresses, the chief's first."""
    cluster = {"worker": list(hosts)}
    tasks = [{"type": "worker", "index": number} for number in range(len(hosts))]
    return [json.dumps({"cluster": cluster, "task": task}) for task in tasks]


def start(
    workers: int, arguments: Sequence[str], tell: Callable[[int, str], None]
) -> list[subprocess.Popen[str]]:
    """As many processes of ``speechrnn train`` with these arguments, which find each other.

    Args:
        tell: gets every line that they write, behind the worker's number, from threads.
    """
    hosts = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    started = []
    for number, config in enumerate(tf_configs(hosts)):
        process = subprocess.Popen(
            [sys.executable, "-m", "speechrnn", "train", *arguments],
            env={**os.environ, "TF_CONFIG": config, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if process.stdout is not None:
            told = number, process.stdout, tell
            threading.Thread(target=_pass_on, args=told, daemon=True).start()
        started.append(process)
    return started


def _pass_on(number: int, lines: IO[str], tell: Callable[[int, str], None]) -> None:
    with lines:
        for line in lines:
            tell(number, line.rstrip())
