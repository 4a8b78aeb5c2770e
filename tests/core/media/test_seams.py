"""Clips that overlap become one video without a frame missing or twice."""

from __future__ import annotations

import numpy as np
import pytest

from core.media.seams import Frame, Seam, SeamKind

FRAMES, OVERLAP = 17, 5


def clip(first: int, count: int = FRAMES) -> list[Frame]:
    """Frames of which each is as bright as the instant that it shows."""
    return [np.full((2, 2, 3), first + i, np.uint8) for i in range(count)]


def instants(frames: list[Frame]) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in frames]


@pytest.mark.parametrize("kind", ["cut", "blend"])
def test_three_clips_show_each_instant_once(kind: SeamKind) -> None:
    seam = Seam(kind, OVERLAP)
    video: list[Frame] = []
    for number in range(3):
        expected = seam.frames_added(FRAMES)
        added = list(seam.clip(clip(number * (FRAMES - OVERLAP))))
        assert len(added) == expected
        video += added
    if seam.held is not None:
        video += list(seam.held)
    assert instants(video) == list(range(FRAMES + 2 * (FRAMES - OVERLAP)))


def test_a_cut_holds_nothing_back() -> None:
    seam = Seam("cut", OVERLAP)
    assert len(list(seam.clip(clip(0)))) == FRAMES
    assert seam.held is None


def test_a_blend_fades_from_the_old_clip_to_the_new_one() -> None:
    seam = Seam("blend", OVERLAP)
    list(seam.clip(clip(0)))
    old = [np.full((2, 2, 3), 100, np.uint8)] * OVERLAP
    seam = Seam("blend", OVERLAP, held=np.stack(old), begun=True)
    added = instants(list(seam.clip([np.full((2, 2, 3), 160, np.uint8)] * FRAMES)))
    assert added[:OVERLAP] == [110, 120, 130, 140, 150]
    assert set(added[OVERLAP:]) == {160}


@pytest.mark.parametrize(
    ("before", "after"), [(("blend", 5), ("cut", 5)), (("cut", 5), ("blend", 5)),
                          (("blend", 9), ("blend", 5)), (("blend", 5), ("blend", 9))]
)  # fmt: skip
def test_a_branch_may_have_another_seam_or_overlap(
    before: tuple[SeamKind, int], after: tuple[SeamKind, int]
) -> None:
    first = Seam(*before)
    video = list(first.clip(clip(0)))
    second = Seam(*after, held=first.held, begun=True)
    expected = second.frames_added(FRAMES)
    added = list(second.clip(clip(FRAMES - after[1])))
    assert len(added) == expected
    video += added
    if second.held is not None:
        video += list(second.held)
    assert instants(video) == list(range(2 * FRAMES - after[1]))


def test_an_overlap_that_is_longer_than_what_is_new_still_joins() -> None:
    seam = Seam("blend", 13)
    video: list[Frame] = []
    for number in range(3):
        video += list(seam.clip(clip(number * 4)))
    assert seam.held is not None
    assert instants([*video, *seam.held]) == list(range(17 + 8))
