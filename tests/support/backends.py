"""A backend with a listener that remembers, for the contract suite and for tests of one backend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.backends.base import Backend
from controlplane.backends.memory import MemoryBackend
from core.engine_process import EngineProcess
from core.protocol import Event, Job, Lane, is_terminal
from core.queue_keys import Rules
from core.workflows.base import Workflow
from tests.support import engine, workflows
from tests.support.wait import wait_until_async

GRACE_S = 0.7


@dataclass
class Recorder:
    """A listener: what the backend has told, in order."""

    told: list[tuple[str, str, Event]] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    connects: int = 0

    def on_event(self, job_id: str, cursor: str, event: Event) -> None:
        self.told.append((job_id, cursor, event))

    def on_found(self, job_id: str) -> None:
        self.found.append(job_id)

    async def on_connected(self) -> None:
        self.connects += 1

    def events(self, job_id: str) -> list[Event]:
        return [event for told_id, _, event in self.told if told_id == job_id]

    def types(self, job_id: str) -> list[str]:
        """Without progress."""
        return [e.type for e in self.events(job_id) if e.type != "progress"]

    def cursors(self, job_id: str) -> list[str]:
        return [cursor for told_id, cursor, _ in self.told if told_id == job_id]


@dataclass
class Place:
    """A started backend and its listener."""

    backend: Backend
    recorder: Recorder

    async def submit(
        self, workflow: type[Workflow[Any]], lane: Lane = "normal", **params: Any
    ) -> str:
        job = new_job(workflow, lane, **params)
        await self.backend.submit(job)
        return job.id

    async def ended(self, job_id: str, timeout_s: float = 30) -> Sequence[Event]:
        """All events of the job, once the last one is terminal."""

        def done() -> list[Event]:
            events = self.recorder.events(job_id)
            return events if events and is_terminal(events[-1]) else []

        return await wait_until_async(done, timeout_s)

    async def until(self, job_id: str, type_: str) -> None:
        """Until an event of this type was told."""
        await wait_until_async(
            lambda: type_ in [event.type for event in self.recorder.events(job_id)], 20
        )


def new_job(workflow: type[Workflow[Any]], lane: Lane = "normal", **params: Any) -> Job:
    recipe = workflow()
    settled = recipe.parse({"model": "fake", "seed": 1, **params})
    return Job(
        workflow=workflow.id,
        params={"model": "fake", "seed": 1, **params},
        lane=lane,
        plan=recipe.plan(settled),
    )


def own_env(folder: Path) -> dict[str, str]:
    """Variables of a diffbox that works below `folder` with the fake workflows."""
    return {
        "DIFFBOX_WORKFLOWS": workflows.ALL,
        "DIFFBOX_DATA_DIR": str(folder / "data"),
        "DIFFBOX_MODELS_DIR": str(folder / "models"),
        "DIFFBOX_OUTPUTS_DIR": str(folder / "outputs"),
    }


def memory_backend(folder: Path, rules: Rules) -> MemoryBackend:
    """A memory backend whose child runs the fake workflows."""
    process = EngineProcess(engine.PATH, grace_s=GRACE_S, env={**os.environ, **own_env(folder)})
    return MemoryBackend(process, rules)
