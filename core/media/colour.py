"""ColourMatch: pulls frames towards the colours of the anchor picture.

Long videos drift: each clip starts from the last latents of the one before, and small errors of
brightness and saturation add up. Here each channel's mean and spread are brought towards the
anchor's. What a frame is compared by is averaged over about a second, also across clips, so
that nothing jumps at a seam and a moving subject does not make the picture pulse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
Statistics = npt.NDArray[np.float64]
"""(2, 3): mean and standard deviation of red, green and blue, 0 to 255."""

_SMOOTHING: Final = 1 / 16
"""Weight of the newest frame in the running statistics: about a second at 16 frames/s."""
_GAIN: Final = (0.5, 2.0)
"""An almost even frame must not have its noise blown up."""


class ColourMatch:
    """Goes from clip to clip.

    Args:
        anchor: statistics of the picture whose colours are kept.
        strength: 0 leaves frames as they are, 1 matches them fully.
        running: statistics of the frames so far; None before the first one.
    """

    def __init__(
        self, anchor: Statistics, strength: float, running: Statistics | None = None
    ) -> None:
        self._anchor = anchor
        self._strength = strength
        self.running = running

    def applied(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Frames (H, W, 3) with their colours matched."""
        if not self._strength:
            yield from frames
            return
        for frame in frames:
            yield self._matched(frame)

    def _matched(self, frame: Frame) -> Frame:
        now = statistics(frame)
        if self.running is None:
            self.running = now
        else:
            self.running = self.running + _SMOOTHING * (now - self.running)
        mean, spread = self.running
        wanted_mean, wanted_spread = self._anchor
        gain = np.clip(wanted_spread / np.maximum(spread, 1e-6), *_GAIN)
        gain = 1 + self._strength * (gain - 1)
        shift = mean + self._strength * (wanted_mean - mean)
        out: npt.NDArray[Any] = (frame - mean.astype(np.float32)) * gain.astype(np.float32)
        matched: Frame = np.rint(out + shift.astype(np.float32)).clip(0, 255).astype(np.uint8)
        return matched


def statistics(frame: Frame) -> Statistics:
    """Mean and spread of each channel of a picture (H, W, 3)."""
    pixels = frame.reshape(-1, 3)
    return np.stack([pixels.mean(axis=0), pixels.std(axis=0)])
