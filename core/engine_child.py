"""The child that holds the engine: `python -m core.engine_child FD PARENT_PID FACTORY`.

Started by core.engine_process only. The main thread runs jobs; a second one reads the parent's
messages, so that a cancel or a new plan is seen while a job runs, and ends the process when the
parent is gone.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import queue
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from core.engine_process import JsonLines
from core.errors import ConfigError
from core.parent_death import die_with
from core.protocol import Job, Plan

if TYPE_CHECKING:
    from core.engine import Engine


def main(argv: list[str]) -> None:
    """Build the engine, tell that it is ready, run jobs until told to end."""
    fd, parent_pid, factory = int(argv[0]), int(argv[1]), argv[2]
    die_with(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses with their signatures
    lines = JsonLines(socket.socket(fileno=fd))
    inbox = _Inbox(lines)
    threading.Thread(target=inbox.read, name="inbox", daemon=True).start()
    try:
        engine = _build(factory)
    except ConfigError as error:
        lines.send(json.dumps({"type": "config_error", "message": error.message}))
        return
    lines.send(json.dumps({"type": "ready", "state": engine.state().model_dump(mode="json")}))
    while (job := inbox.jobs.get()) is not None:
        terminal = engine.run(
            job,
            emit=lambda event: lines.send(event.model_dump_json()),
            cancelled=lambda job_id=job.id: job_id in inbox.cancelled,  # type: ignore[misc]
            steered=lambda job_id=job.id: inbox.plans.get(job_id),  # type: ignore[misc]
        )
        inbox.forget()
        lines.send(terminal.model_dump_json())
    engine.close()


class _Inbox:
    """Jobs, cancels and plans as the parent sends them."""

    def __init__(self, lines: JsonLines) -> None:
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.cancelled: set[str] = set()
        self.plans: dict[str, Plan] = {}
        """The newest one of each job that was steered; it may come before its job."""
        self._lines = lines

    def read(self) -> None:
        """Runs in its own thread until the parent says exit, or is gone."""
        while True:
            try:
                line = self._lines.receive(None)
            except (EOFError, OSError):
                os._exit(0)  # nobody is left to work for; the job is redelivered elsewhere
            message: dict[str, Any] = json.loads(line or "{}")
            if message.get("type") == "job":
                self.jobs.put(Job.model_validate(message["job"]))
            elif message.get("type") == "cancel":
                self.cancelled.add(message["job_id"])
            elif message.get("type") == "steer":
                self._keep(message["job_id"], Plan.model_validate(message["plan"]))
            elif message.get("type") == "exit":
                self.jobs.put(None)

    def forget(self) -> None:
        """A job is done. The parent sends nothing for the next one before it knows that."""
        self.cancelled.clear()
        self.plans.clear()

    def _keep(self, job_id: str, plan: Plan) -> None:
        known = self.plans.get(job_id)
        if known is None or plan.rev > known.rev:
            self.plans[job_id] = plan


def _build(factory: str) -> Engine:
    module, _, name = factory.partition(":")
    build: Any = getattr(importlib.import_module(module), name)
    engine: Engine = build()
    return engine


if __name__ == "__main__":
    main(sys.argv[1:])
