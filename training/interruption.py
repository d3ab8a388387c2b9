"""Asked to stop: the step that is under way is finished, the run is saved, and the process ends.

SIGINT (Ctrl-C) and SIGTERM (a batch system, ``kill``) ask; a second one stops at once.
"""

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from tokenreel.training.ranks import is_first

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop has been saved. The exit status is 128 + the signal's number, as shells have it."""

    def __init__(self, words: str, asked: signal.Signals) -> None:
        super().__init__(words)
        self.status = 128 + asked


class Interruption:
    """Takes the signals that ask a process to stop, in a ``with`` block; in other threads than the main one none."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        """The signal that came."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is None:
            self.asked = signal.Signals(number)
            if is_first():
                words = f"{self.asked.name}: finishing the step and saving; once more stops at once"
                print(words, file=sys.stderr, flush=True)
            return
        for each in SIGNALS:  # a third one needs no help of ours
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt
