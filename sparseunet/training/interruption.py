"""Ending a training between two steps when a signal asks for it."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from sparseunet.errors import SparseUNetError

StopSignal = Callable[[], int | None]
"""Says which signal has come; None for none yet."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterruptedError(SparseUNetError):
    """A signal ended the training; its checkpoint is written. Exit code 128 + signal."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
        super().__init__(message)


@contextlib.contextmanager
def stop_on_signals(*, ends_at_second: bool = True) -> Iterator[Callable[[], int | None]]:
    """Give a function that says which of SIGINT and SIGTERM has come; None for none yet.

    The second one ends the process at once, as if nobody listened, unless `ends_at_second` is
    False: `torchrun` passes a signal on that the process may have got already, and kills what does
    not end in half a minute. A signal that is ignored (as in
    the background of a shell script) stays ignored. Outside the main thread, where Python lets
    nobody listen, the function always says None.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def note(signal_number: int, _: FrameType | None) -> None:
        received.append(signal_number)
        if not ends_at_second:
            return
        for number in before:
            signal.signal(number, signal.SIG_DFL)
        name = signal.Signals(signal_number).name
        # Not sys.stderr: the signal may have come in the middle of a write to it.
        os.write(2, f"\n{name}: stopping after this step; once more to stop at once\n".encode())

    before = {
        number: handler
        for number in SIGNALS
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
