"""Workflow and PipelineSpec: a recipe says what it needs and what happens, and holds no weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from core import catalog
from core.catalog import Family, ModelRef
from core.protocol import Plan
from core.run import Run
from core.workflows.params import Params, validate

P = TypeVar("P", bound=Params)


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
        """Params as they go into a Job: model chosen, its defaults laid under, seed settled.

        Args:
            raw: what was sent; may leave out everything that has a default.
            ready: ids of the models whose weights are where the job will run.

        Raises:
            InvalidParams: with one Problem a rejected value.
        """
        row = self.choose(raw.get("model", catalog.AUTO), ready)
        values = {**self._params.layered(row.defaults, raw), "model": row.id}
        return validate(self._params, values, capabilities=row.capabilities).settled()

    def read(self, stored: Mapping[str, Any]) -> P:
        """Params from a Job, checked again where they are used."""
        row = self.choose(stored.get("model", catalog.AUTO), ())
        return validate(self._params, {**stored, "model": row.id}, capabilities=row.capabilities)

    def choose(self, model_id: object, ready: Collection[str]) -> ModelRef:
        """The catalog's row for a model id; for "auto" the best ready one, else the demo.

        Raises:
            InvalidParams: unknown, or not for this workflow.
        """
        rows = self.models
        if model_id in (catalog.AUTO, None, ""):
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

    @abstractmethod
    def run(self, params: P, run: Run) -> None:
        """Do it: load, make, save. Artifacts go through `run`; errors are raised."""
