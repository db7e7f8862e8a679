"""Ctrl-C and SIGTERM wait for the epoch's end, where everything can be saved."""

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from jaxrl_cb.trainer.checkpointer import LONG_EPOCH

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or whatever sends SIGINT, ended the run.

    Attributes:
        is_dropped: whether the epoch that ran was given up; its computation may still go on.
    """

    def __init__(self, message: str = "", *, is_dropped: bool = False):
        super().__init__(*[message] if message else [])
        self.is_dropped = is_dropped


class Terminated(SystemExit):
    """SIGTERM ended the run. Where nothing catches it the process exits with code 143.

    Attributes:
        is_dropped: whether the epoch that ran was given up; its computation may still go on.
    """

    def __init__(self, message: str = "", *, is_dropped: bool = False):
        super().__init__(128 + signal.SIGTERM)
        self.message = message
        self.is_dropped = is_dropped


class SignalGuard:
    """While it is entered, a first signal is noted, and the caller asks for it between epochs.

    An epoch is finished first if the one before took at most `LONG_EPOCH` seconds; otherwise, or
    where none has ended yet and this one goes on for so long after the signal, it is dropped if
    nothing else would be lost: `Interrupted` or `Terminated` is raised in its midst. A second
    Ctrl-C raises at once.

    Off the main thread Python cannot handle signals, so nothing is done there; a signal that was
    ignored before (as under nohup) stays ignored.

    Attributes:
        received: the first signal, or None.
        is_at_once: whether a second Ctrl-C came, after which nothing is waited for.
    """

    def __init__(self, may_drop: Callable[[], bool]):
        """Args:
        may_drop: whether an epoch that takes long may be dropped now; what is saved stays.
        """
        self.received: signal.Signals | None = None
        self.is_at_once = False
        self._may_drop = may_drop
        self._in_epoch = False
        self._seconds: float | None = None
        self._is_by_timer = False
        self._previous: dict[signal.Signals, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "SignalGuard":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                previous = signal.getsignal(number)
                if previous is not signal.SIG_IGN:
                    self._previous[number] = previous
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer:
            self._timer.cancel()
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    @contextlib.contextmanager
    def epoch(self) -> Iterator[None]:
        """Within it an epoch runs, which may be dropped; outside of it nothing is cut short."""
        self._in_epoch = True
        try:
            yield
        finally:
            self._in_epoch = False

    def epoch_ended(self, seconds: float) -> None:
        """Notes how long an epoch took."""
        self._seconds = seconds

    def error(self, message: str = "", *, is_dropped: bool = False) -> BaseException:
        """What the signal that was received raises."""
        kind: Callable[..., BaseException] = Interrupted
        if self.received == signal.SIGTERM:
            kind = Terminated
        return kind(message, is_dropped=is_dropped)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_by_timer, self._is_by_timer = self._is_by_timer, False
        if self.received is None:
            self.received = signal.Signals(number)
            if self._seconds is None:
                self._watch(self.received)
        elif number == signal.SIGINT and not is_by_timer:
            self.is_at_once = True
            raise Interrupted(is_dropped=True)
        is_long = self._seconds is not None and self._seconds > LONG_EPOCH
        if self._in_epoch and (is_long or is_by_timer) and self._may_drop():
            raise self.error(is_dropped=True)

    def _watch(self, number: signal.Signals) -> None:
        """Sends the signal to ourselves again, unless the epoch ends in time."""

        def send() -> None:
            if self._seconds is None:
                self._is_by_timer = True
                _thread.interrupt_main(number)

        self._timer = threading.Timer(LONG_EPOCH, send)
        self._timer.daemon = True
        self._timer.start()


def leave_at_once(code: int) -> None:
    """Ends the process without waiting for a computation that still runs."""
    sys.stdout.flush()
    os._exit(code)
