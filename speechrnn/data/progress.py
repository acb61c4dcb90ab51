"""What is shown while a corpus is prepared."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """A bar of utterances on stderr; none where nothing is expected, or nothing is to be shown."""

    def __init__(self, title: str, shown: bool):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:.0f} s of audio a second"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not shown)
        self._task = self._bar.add_task(title, total=0, speed=0.0)
        self._started, self._seconds = time.monotonic(), 0.0

    def expect(self, utterances: int) -> None:
        """Say how many utterances there will be."""
        if utterances:
            self._started = time.monotonic()
            self._bar.update(self._task, total=utterances)
            self._bar.start()

    def advance(self, utterances: int, seconds: float) -> None:
        """So many are done, which are so much audio."""
        self._seconds += seconds
        speed = self._seconds / max(time.monotonic() - self._started, 1e-3)
        self._bar.update(self._task, advance=utterances, speed=speed)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
