"""What is measured in one process, in turns, of which the best counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import track

Work = Callable[[], float]  # what is measured; returns the seconds of audio it went through


class Rates:
    """The best of several rounds, by name: seconds of audio for a second of each clock.

    Processor time is that of all threads of this process, so other processes disturb it little.
    """

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    def rounds(self, works: Sequence[tuple[str, Work]], count: int) -> None:
        """Measure them in turn, ``count`` times; a bar on stderr."""
        for _ in track(range(count), "measuring", console=Console(stderr=True)):
            for name, work in works:
                self.take(name, work)

    def take(self, name: str, work: Work) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        audio = work()
        rates = audio / (time.perf_counter() - wall), audio / (time.process_time() - processor)
        self.wall[name] = max(self.wall.get(name, 0), rates[0])
        self.processor[name] = max(self.processor.get(name, 0), rates[1])
