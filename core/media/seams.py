"""Seams: how clips that overlap become one video, frame by frame.

A clip begins `overlap` frames before the end of the clip before it: both show the same instants.

    cut     ..abcde|fghi    the new clip's first frames are dropped
    blend   ..ABCDE|fghi    the old clip's last frames fade into the new clip's first ones, so they
                            are held back until the next clip is there
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
SeamKind = Literal["cut", "blend"]


class Seam:
    """Goes from clip to clip.

    Args:
        kind: cut or blend.
        overlap: how many frames two clips share.
        held: (n, H, W, 3) uint8, the last frames of the video so far that were held back; None
            when there are none.
        begun: whether there was a clip before.
    """

    def __init__(
        self, kind: SeamKind, overlap: int, *, held: Frame | None = None, begun: bool = False
    ) -> None:
        self._blends = kind == "blend"
        self._overlap = overlap
        self._held = held
        self._begun = begun

    @property
    def held(self) -> Frame | None:
        """What is held back now; it belongs to the video's end if no clip follows."""
        return self._held

    def clip(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames that this clip adds to the video, of all its frames (H, W, 3)."""
        joined = self._joined(iter(frames))
        if not self._blends:
            yield from joined
            self._held = None
        else:
            waiting: deque[Frame] = deque()
            for frame in joined:
                waiting.append(frame)
                if len(waiting) > self._overlap:
                    yield waiting.popleft()
            self._held = np.stack(waiting)
        self._begun = True

    def frames_added(self, num_frames: int) -> int:
        """How many frames the next clip of `num_frames` will add."""
        dropped = self._overlap if self._begun else 0
        owed = 0 if self._held is None else len(self._held)
        return num_frames - dropped + owed - (self._overlap if self._blends else 0)

    def _joined(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        if not self._begun:
            yield from frames
            return
        # The clip before may have been made with another seam or overlap than this one.
        owed = () if self._held is None else tuple(self._held)
        shared = min(len(owed), self._overlap)
        yield from owed[: len(owed) - shared]
        for _ in range(self._overlap - shared):
            next(frames)
        for index, old in enumerate(owed[len(owed) - shared :], start=1):
            new = next(frames)
            yield blended(old, new, index / (shared + 1)) if self._blends else old
        yield from frames


def blended(old: Frame, new: Frame, share: float) -> Frame:
    """A frame between two, with `share` (0 to 1) of the new one."""
    mixed: npt.NDArray[Any] = old + share * (new.astype(np.float32) - old)
    frame: Frame = np.rint(mixed).astype(np.uint8)
    return frame
