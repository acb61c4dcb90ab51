"""Train a recipe with several workers on this machine, to see that a cluster's set-up works.

    python pipelines/cluster/loopback.py configs/an4.yaml training.epochs=2
    python pipelines/cluster/loopback.py --workers 3 configs/quickstart.yaml output=runs/three

Every worker is `speechrnn train` with the same arguments and a TF_CONFIG of its own, as on
machines of a cluster; here their addresses are free ports of 127.0.0.1. Each line of theirs is
shown with the worker's number before it. The workers share this machine's cores: what is gained is
nothing but the knowledge that it works.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from speechrnn.training import loopback


def main(workers: int, arguments: Sequence[str]) -> int:
    """Returns the first exit code that is not 0, as a shell counts a signal."""
    processes = loopback.start(
        workers, arguments, lambda number, line: print(f"[worker {number}] {line}", flush=True)
    )

    def pass_on(*_: object) -> None:
        for process in processes:
            process.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    try:
        codes = [process.wait() for process in processes]
    except KeyboardInterrupt:  # which all of them got as well
        codes = [process.wait() for process in processes]
    print("exit codes: " + ", ".join(map(str, codes)))
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("recipe")
    parser.add_argument("override", nargs="*", metavar="key=value")
    given = parser.parse_args()
    sys.exit(main(given.workers, [given.recipe, *given.override]))
