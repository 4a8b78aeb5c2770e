"""WarmPipelines: what stays loaded, what goes first, and what happens when memory ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from core.errors import OutOfMemory
from core.lora import LoraUse
from core.run import Run
from core.warm import WarmPipelines
from core.workflows.base import PipelineSpec

RUN: Any = None


def spec(model: str) -> PipelineSpec:
    return PipelineSpec(family="wan_video", model=model)


class Loaded:
    """A pipeline that takes as much room as its name is long."""

    def __init__(self, wanted: PipelineSpec, room: Room) -> None:
        self.provenance: dict[str, Any] = {}
        self.size = len(wanted.model)
        self._room = room
        self.recovers = True

    def use_loras(self, uses: Sequence[LoraUse], run: Run) -> None:
        """None here."""

    def measured(self) -> dict[str, Any]:
        return {"size": self.size}

    def release(self) -> None:
        self._room.taken -= self.size

    def recover(self) -> None:
        if not self.recovers:
            raise RuntimeError("broken")


class Room:
    """A device of `size`; `promised` is what it says it has beyond that."""

    def __init__(self, size: int, promised: int = 0) -> None:
        self.size, self.promised = size, promised
        self.taken = 0
        self.loads: list[str] = []
        self.warm = WarmPipelines(self.load, self.fits)

    def fits(self, wanted: PipelineSpec) -> bool:
        return self.taken + len(wanted.model) <= self.size + self.promised

    def load(self, wanted: PipelineSpec, run: Run) -> Loaded:
        self.loads.append(wanted.model)
        if self.taken + len(wanted.model) > self.size:
            raise OutOfMemory("full")
        self.taken += len(wanted.model)
        return Loaded(wanted, self)

    def use(self, *models: str) -> list[str]:
        """What is loaded after jobs with these models."""
        for model in models:
            self.warm.get(spec(model), RUN)
        return [kept.model for kept in self.warm.specs]


def test_what_fits_stays_and_is_loaded_once() -> None:
    room = Room(10)
    assert room.use("aaa", "bbb", "aaa", "bbb") == ["aaa", "bbb"]
    assert room.loads == ["aaa", "bbb"]
    assert room.warm.get(spec("aaa"), RUN) is room.warm.get(spec("aaa"), RUN)


def test_the_least_recently_used_one_goes_first() -> None:
    assert Room(7).use("aaa", "bbb", "aaa", "ccc") == ["aaa", "ccc"]


def test_as_many_go_as_have_to() -> None:
    assert Room(9).use("aaa", "bbb", "ccc", "dddddd") == ["ccc", "dddddd"]


def test_out_of_memory_beside_others_makes_room_and_tries_once_more() -> None:
    room = Room(7, promised=5)
    assert room.use("aaa", "bbb", "ccc") == ["ccc"]
    assert room.loads == ["aaa", "bbb", "ccc", "ccc"]
    assert room.taken == 3


def test_out_of_memory_alone_is_told_at_once() -> None:
    room = Room(3)
    with pytest.raises(OutOfMemory):
        room.use("aaaa")
    assert room.loads == ["aaaa"]


def test_out_of_memory_on_the_second_try_is_told_too() -> None:
    room = Room(3, promised=9)
    room.use("aaa")
    with pytest.raises(OutOfMemory):
        room.use("bbbb")
    assert room.warm.specs == ()
    assert room.use("aaa") == ["aaa"]


def test_after_a_fatal_end_all_go() -> None:
    room = Room(10)
    room.use("aaa", "bbb")
    room.warm.recover(drop=True)
    assert (room.warm.specs, room.taken) == ((), 0)


def test_after_another_end_all_stay() -> None:
    room = Room(10)
    room.use("aaa", "bbb")
    room.warm.recover(drop=False)
    assert len(room.warm.specs) == 2


def test_one_that_does_not_recover_takes_all_with_it() -> None:
    room = Room(10)
    room.use("aaa", "bbb")
    broken: Any = room.warm.get(spec("bbb"), RUN)
    broken.recovers = False
    room.warm.recover(drop=False)
    assert room.warm.specs == ()


def test_the_one_that_was_used_last_is_measured() -> None:
    room = Room(10)
    assert room.warm.measured() == {}
    room.use("aaa", "bbbb", "aaa")
    assert room.warm.measured() == {"size": 3}
