"""What `colour_match` does against drift.

    python -m benchmarks.bench_colour

Clips of a photo that a camera moves over, made to drift as long SVI videos do: each clip is a
little brighter, flatter and warmer than the one before. Measured is how far the colours of each
clip are from those that the camera saw (0 to 255, mean of the channels), and the largest jump of
a channel between two frames.
The drift is ours, not a model's: with real weights nothing was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.table import print_json, print_table
from core.media.colour import ColourMatch, Frame, statistics

CLIPS, FRAMES, SIDE = 10, 76, 192
STRENGTHS = (0.0, 0.5, 1.0)
REACHES = {"the scene stays": 0.1, "the camera leaves it": 1.0}
"""How far the camera goes, as a share of what there is beside the window."""
PHOTO = Path(__file__).parents[1] / "tests/assets/photo.jpg"
GAIN, LIFT = 0.97, np.array([3.0, 1.5, 0.5])
"""Of one clip: spread times GAIN, and so much more red, green and blue (0 to 255)."""


def main() -> None:
    """Measure all strengths on the same frames."""
    rows, found = [], {}
    for scene, reach in REACHES.items():
        for strength in STRENGTHS:
            drift, jump = measured(strength, reach)
            shown = {f"clip {clip + 1}": f"{drift[clip]:.1f}" for clip in (0, 4, 9)}
            rows.append(
                {"scene": scene, "colour_match": strength, **shown, "largest jump": f"{jump:.1f}"}
            )
            found[f"{scene}, {strength:g}"] = [round(value, 2) for value in (*drift, jump)]
    print_table("Distance of a clip's colours from what was filmed", rows)
    print_json("colour", {"clips": CLIPS, "drift_and_jump": found})


def measured(strength: float, reach: float) -> tuple[list[float], float]:
    """(distance of each clip's mean colours from what was filmed, largest step of a frame)."""
    anchor = statistics(view(0, reach))
    match = ColourMatch(anchor, strength)
    drift, jump, last = [], 0.0, None
    for clip in range(CLIPS):
        means = []
        for frame in match.applied(frames(clip, reach)):
            mean = statistics(frame)[0]
            if last is not None:
                jump = max(jump, float(np.abs(mean - last).max()))
            last = mean
            means.append(mean)
        true = np.mean(
            [statistics(view(clip * FRAMES + i, reach))[0] for i in range(FRAMES)], axis=0
        )
        drift.append(float(np.abs(np.mean(means, axis=0) - true).mean()))
    return drift, jump


def frames(clip: int, reach: float) -> Iterator[Frame]:
    """The clip as a drifting model would make it."""
    for index in range(FRAMES):
        at = clip + index / FRAMES
        pixels = view(clip * FRAMES + index, reach).astype(np.float64)
        mean = pixels.mean(axis=(0, 1))
        drifted = (pixels - mean) * GAIN**at + mean + LIFT * at
        yield np.rint(drifted).clip(0, 255).astype(np.uint8)


def view(number: int, reach: float) -> Frame:
    """What the camera sees: a window that circles over the photo."""
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    height, width = photo.shape[:2]
    side = min(height, width) * 3 // 4
    angle = 2 * np.pi * number / (CLIPS * FRAMES / 2)
    left = round((width - side) / 2 * (1 + reach * np.sin(angle)))
    top = round((height - side) / 2 * (1 - reach * np.cos(angle)))
    window = Image.fromarray(photo[top : top + side, left : left + side])
    return np.asarray(window.resize((SIDE, SIDE)))


if __name__ == "__main__":
    main()
