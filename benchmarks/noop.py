"""A workflow that does nothing, to time everything around it. Put in with DIFFBOX_WORKFLOWS."""

from __future__ import annotations

from typing import ClassVar

from core.catalog import AUTO, ModelRef
from core.run import Run
from core.workflows.base import Workflow
from core.workflows.params import Params, Tier, param


class NoopParams(Params):
    """Only what every workflow has."""

    model: str = param(AUTO, tier=Tier.EXPERT, help="Unused.")
    seed: int | None = param(None, tier=Tier.BASIC, help="Unused.", ge=0)


class Noop(Workflow[NoopParams]):
    """Ends at once."""

    id: ClassVar[str] = "noop"
    title: ClassVar[str] = "No-op"
    summary: ClassVar[str] = "Does nothing."
    params: ClassVar[type[Params]] = NoopParams

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """One row without files."""
        row = ModelRef(
            id="none", title="None", family="wan_video", workflows=("noop",), files=(), demo=True
        )
        return (row,)

    def run(self, params: NoopParams, run: Run) -> None:
        """Nothing."""
