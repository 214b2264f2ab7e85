"""The progress of a training run: a bar on a terminal, a line per epoch elsewhere, nothing in processes that do not
write."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Display:
    """Shows the progress of `total` steps, `done` of which were made before the run was resumed."""

    def __init__(
        self, epochs: int, total: int, done: int = 0, console: Console | None = None, quiet: bool = False
    ) -> None:
        self.console = console or Console(quiet=quiet)
        self._epochs, self._total, self._done, self._first = epochs, total, done, done
        self._started = self._drawn = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if self.console.is_terminal and not quiet:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self.console)
            self._task = self._bar.add_task(f"epoch 1/{epochs}", total=total, completed=done, numbers="")

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def due(self) -> bool:
        """Whether to read a new loss from the device (a few times a second)."""
        return self._bar is not None and time.monotonic() - self._drawn > 0.25

    def advance(self, epoch: int, loss: float | None = None) -> None:
        """Counts one more step."""
        self._done += 1
        if self._bar is None:
            return
        if loss is not None:
            self._drawn = time.monotonic()
            self._bar.update(self._task, numbers=f"loss {loss:.4f}")
        self._bar.update(self._task, completed=self._done, description=f"epoch {epoch + 1}/{self._epochs}")

    def epoch(self, record: dict[str, object]) -> None:
        """Prints the line of a finished epoch."""
        self.console.print(f"{_line(record, self._epochs)}  {self._left()}", highlight=False, soft_wrap=True)

    def note(self, message: str) -> None:
        self.console.print(message, highlight=False, soft_wrap=True)

    def _left(self) -> str:
        steps = self._done - self._first
        left = (time.monotonic() - self._started) / max(steps, 1) * (self._total - self._done)
        return f"{_clock(left)} left"


def _line(record: dict[str, object], epochs: int) -> str:
    parts = [f"epoch {record['epoch']}/{epochs}", f"eps {record['eps']:.4f}", f"loss {record['loss']:.4f}"]
    parts += (
        [f"clean {record['clean_error']:.2%}", f"verified {record['verified_error']:.2%}"]
        if "clean_error" in record
        else []
    )
    return "  ".join([*parts, f"{record['seconds']:.1f} s"])


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
