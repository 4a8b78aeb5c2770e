"""Fraction and time left."""

from __future__ import annotations

from core.progress import ProgressMeter, tail_share
from core.protocol import Stage


class Clock:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def steps(meter: ProgressMeter, clock: Clock, times: list[float]) -> list[float | None]:
    meter.enter(Stage.DENOISING, len(times))
    etas = []
    for done, spent in enumerate(times, start=1):
        clock.now += spent
        meter.step(done)
        etas.append(meter.state().eta_s)
    return etas


def test_the_fraction_never_falls_through_all_stages() -> None:
    clock = Clock()
    meter = ProgressMeter(clock=clock)
    readings = []
    for stage in Stage:
        meter.enter(stage, 2)
        for done in (0, 1, 2):
            meter.step(done)
            readings.append(meter.state().fraction)
    assert readings == sorted(readings)
    assert readings[-1] == 1.0


def test_the_time_left_is_told_after_two_steps_and_the_first_does_not_count() -> None:
    clock = Clock()
    etas = steps(ProgressMeter(clock=clock, tail_share=0.0), clock, [30.0, 2.0, 2.0, 2.0, 2.0])
    assert etas == [None, 6.0, 4.0, 2.0, 0.0]


def test_the_time_left_counts_down_between_steps_and_after_them() -> None:
    clock = Clock()
    meter = ProgressMeter(clock=clock, tail_share=0.5)
    steps(meter, clock, [2.0, 2.0, 2.0, 2.0])
    assert meter.state().eta_s == 4.0
    meter.enter(Stage.DECODING, 0)
    clock.now += 3.0
    assert meter.state().eta_s == 1.0


def test_decoding_corrects_the_time_left_by_its_own_steps() -> None:
    clock = Clock()
    meter = ProgressMeter(clock=clock, tail_share=0.1)
    steps(meter, clock, [1.0, 1.0])
    meter.enter(Stage.DECODING, 4)
    for done in (1, 2):
        clock.now += 5.0
        meter.step(done)
    assert meter.state().eta_s == 10.0


def test_seconds_are_kept_by_stage() -> None:
    clock = Clock()
    meter = ProgressMeter(clock=clock)
    steps(meter, clock, [1.0, 1.0])
    meter.enter(Stage.DECODING, 0)
    clock.now += 1.0
    seconds = meter.finish()
    assert seconds == {Stage.DENOISING: 2.0, Stage.DECODING: 1.0}
    assert tail_share(seconds) == 0.5
