"""How the command line shows a running job: one line that is drawn again, and Ctrl-C as a wish."""

from __future__ import annotations

import shutil
import signal
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, Self, TextIO

_BAR: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """Where a job is; `fraction` is of the whole job, 0 to 1."""

    stage: str
    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    eta_s: float | None = None


class ProgressLine:
    """On a terminal one line that changes; elsewhere a line for each new stage.

    Args:
        stream: standard error, so that standard output stays for the result.
        silent: shows nothing.
    """

    def __init__(self, stream: TextIO | None = None, *, silent: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._silent = silent
        self._live = self._stream.isatty()
        self._stage = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live and self._stage:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def show(self, shown: Shown) -> None:
        """Draw the line, or tell the new stage."""
        if self._silent:
            return
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r{line(shown)[:width]}\x1b[K")
        elif shown.stage != self._stage:
            self._stream.write(f"{shown.stage}\n")
        self._stage = shown.stage
        self._stream.flush()


def line(shown: Shown) -> str:
    """`denoising 23/50 ━━━━━━━━━───────────  46 %  1:05 left`."""
    filled = round(shown.fraction * _BAR)
    step = f" {shown.step}/{shown.steps}" if shown.steps else ""
    left = "" if shown.eta_s is None else f"  {clock(shown.eta_s)} left"
    bar = "━" * filled + "─" * (_BAR - filled)
    return f"{shown.stage + step:<16} {bar} {shown.fraction:4.0%}{left}"


def clock(seconds: float) -> str:
    """`1:05` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Interrupt:
    """Ctrl-C and SIGTERM become a wish that is asked for; the second one ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
