"""Hints, dependencies and capabilities, on a workflow that is not ours."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal

import pytest

from core.catalog import AUTO, ModelRef
from core.errors import InvalidParams
from core.run import Run
from core.workflows.base import Workflow
from core.workflows.params import HINTS, Params, Tier, param


class FilmParams(Params):
    model: str = param(AUTO, tier=Tier.ADVANCED, help="Weights.")
    seed: int | None = param(None, tier=Tier.BASIC, help="Seed.")
    mode: Literal["still", "moving"] = param("still", tier=Tier.BASIC, help="Kind.")
    speed: float = param(
        1.0, tier=Tier.ADVANCED, unit="px/frame", help="Pan.", when={"mode": "moving"}, gt=0
    )
    camera: str = param("none", tier=Tier.EXPERT, help="Camera.", needs="camera")


def row(model_id: str, *capabilities: str, demo: bool = False) -> ModelRef:
    return ModelRef(
        id=model_id,
        title=model_id,
        family="wan_video",
        workflows=("film",),
        files=(),
        capabilities=frozenset(capabilities),
        defaults=MappingProxyType({"mode": "moving"} if demo else {}),
        demo=demo,
    )


class Film(Workflow[FilmParams]):
    id: ClassVar[str] = "film"
    title: ClassVar[str] = "Film"
    summary: ClassVar[str] = "Film."
    params: ClassVar[type[Params]] = FilmParams
    models = (row("large", "camera"), row("small"), row("toy", demo=True))

    def run(self, params: FilmParams, run: Run) -> None:
        """Not run here."""


def test_hints_travel_in_the_schema() -> None:
    speed = FilmParams.model_json_schema()["properties"]["speed"]
    assert speed[HINTS] == {"tier": "advanced", "unit": "px/frame", "when": {"mode": "moving"}}
    assert speed["exclusiveMinimum"] == 0


def test_a_parameter_whose_mode_is_off_is_refused() -> None:
    with pytest.raises(InvalidParams, match="speed counts only when mode is 'moving'"):
        Film().parse({"speed": 2.0, "model": "large"})


def test_its_default_is_no_offence() -> None:
    assert Film().parse({"speed": 1.0, "model": "large"}).speed == 1.0


def test_a_parameter_that_the_model_cant_use_is_refused() -> None:
    with pytest.raises(InvalidParams, match="camera can't be used with model 'small'"):
        Film().parse({"camera": "left", "model": "small"})
    assert Film().parse({"camera": "left", "model": "large"}).camera == "left"


def test_auto_takes_the_best_ready_model_else_the_demo_with_its_defaults() -> None:
    film = Film()
    assert film.parse({}, ready=("small", "large")).model == "large"
    assert film.parse({}, ready=("small",)).model == "small"
    demo = film.parse({})
    assert (demo.model, demo.mode) == ("toy", "moving")
