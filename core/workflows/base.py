"""Workflow and PipelineSpec: a recipe says what it needs and what happens, and holds no weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from core import catalog
from core.catalog import Family, ModelRef, Preset
from core.protocol import Plan
from core.run import Run
from core.workflows.params import Params, validate
from core.workflows.presets import check_loras, preferred, preset_of

P = TypeVar("P", bound=Params)

_ANY = (catalog.AUTO, None, "")
"""Values of the model parameter that leave the choice to us."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineSpec:
    """Which family with which weights. Equal specs share one loaded pipeline."""

    family: Family
    model: str


class Workflow(ABC, Generic[P]):
    """A user-facing recipe. Subclasses give the class variables and `run`."""

    id: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    params: ClassVar[type[Params]]

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """The models that it can run on, best first."""
        return catalog.models_for(self.id)

    def parse(self, raw: Mapping[str, Any], *, ready: Collection[str] = ()) -> P:
        """Params as they go into a Job: model chosen, defaults laid under, seed settled.

        A preset's values lie between the model's defaults and what was sent.

        Args:
            raw: what was sent; may leave out everything that has a default.
            ready: ids of the models whose weights are where the job will run.

        Raises:
            InvalidParams: with one Problem a rejected value.
        """
        row = self.row(raw, ready)
        preset = preset_of(self.id, raw.get("preset"), row)
        values = {**self._params.layered(self.defaults(row, preset), raw), "model": row.id}
        params = validate(self._params, values, row)
        check_loras(preset, params)
        return params.settled()

    def read(self, stored: Mapping[str, Any]) -> P:
        """Params from a Job, checked again where they are used."""
        row = self.choose(stored.get("model", catalog.AUTO), ())
        return validate(self._params, {**stored, "model": row.id}, row)

    def row(self, raw: Mapping[str, Any], ready: Collection[str]) -> ModelRef:
        """The model that what was sent would run on; a preset prefers those that it is made for.

        Raises:
            InvalidParams: unknown, or not for this workflow.
        """
        asked = raw.get("model", catalog.AUTO)
        if asked in _ANY and (row := preferred(self.id, raw.get("preset"), self.models, ready)):
            return row
        return self.choose(asked, ready)

    def defaults(self, row: ModelRef, preset: Preset | None) -> Mapping[str, Any]:
        """The values of what was not sent, where they are not the parameter's own."""
        return self._params.layered(row.defaults, preset.params) if preset else row.defaults

    def choose(self, model_id: object, ready: Collection[str]) -> ModelRef:
        """The catalog's row for a model id; for "auto" the best ready one, else the demo.

        Raises:
            InvalidParams: unknown, or not for this workflow.
        """
        rows = self.models
        if model_id in _ANY:
            return next((r for r in rows if r.id in ready), next(r for r in rows if r.demo))
        known = [row for row in rows if row.id == model_id]
        if not known:
            raise catalog.unknown_model(model_id, rows)
        return known[0]

    @property
    def _params(self) -> type[P]:
        return self.params  # type: ignore[return-value]  # ClassVar can't be generic (PEP 526)

    def plan(self, params: P) -> Plan | None:
        """The clips that a job with these params makes; None where nothing can be steered."""
        return None

    def planned(self, plan: Plan) -> dict[str, Any]:
        """The params for which `plan` is this one, but for what says where it begins."""
        return {}

    def check_continuation(self, params: P, source: P) -> None:
        """Refuse params that differ from the continued job's where one video can't.

        Raises:
            InvalidParams: names the parameters at fault.
        """

    @abstractmethod
    def run(self, params: P, run: Run) -> None:
        """Do it: load, make, save. Artifacts go through `run`; errors are raised."""
