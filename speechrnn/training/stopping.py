"""SIGTERM and Ctrl-C: the first asks training to stop where that is exact, the second ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

Item = TypeVar("Item")


class StopRequested(Exception):
    """Raised at a point where what was under way can be dropped and done again."""

    def __init__(self, received: signal.Signals):
        super().__init__(received.name)
        self.received = received


class StopSignals:
    """While entered, remembers the first SIGTERM or SIGINT in place of ending the process.

    From then on a second one does what it does by default: it ends the process at once, even in
    the middle of a step. In another thread than the main one nothing changes, since Python lets
    only that one have handlers.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # A process that ignores one, as behind nohup or in a shell's background, goes on.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)

    def check(self) -> None:
        """Raise StopRequested if a signal was received."""
        if self.received is not None:
            raise StopRequested(self.received)

    def until(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, with a ``check`` before each is handed on."""
        for item in items:
            self.check()
            yield item
