"""A job on this computer, without a server: an engine in a child process, for one job."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controlplane.cli_progress import Interrupt, ProgressLine, Shown
from controlplane.config import Settings
from core import catalog
from core.engine_process import EngineDied, EngineProcess, Verdict
from core.lora import LoraShelf
from core.media.probe import probe
from core.protocol import Artifact, Cancelled, Event, Job, Progress, TerminalEvent
from core.weights import missing
from core.workflows.base import Workflow

_BEAT_S: Final = 0.2
"""How soon Ctrl-C is seen while nothing happens."""
_LAST_WORDS: Final = 2000
"""Characters of the engine's log that are shown when it dies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How a job ended. `params` are settled; `file` opens an artifact as a local file."""

    job: Job
    event: TerminalEvent
    file: Callable[[Artifact], Path]


class LocalRunner:
    """Runs one job in a scratch folder.

    Args:
        settings: engine, interpreter and folder of the weights.
        environ: variables that the engine inherits.
        scratch: takes uploads, outputs and the engine's log; the caller removes it.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str], scratch: Path) -> None:
        self._settings = settings
        self._scratch = scratch
        self._uploads = scratch / "data" / "uploads"
        self._outputs = scratch / "outputs"
        env = {
            **environ,
            "DIFFBOX_DATA_DIR": str(scratch / "data"),
            "DIFFBOX_OUTPUTS_DIR": str(self._outputs),
        }
        self._process = EngineProcess(
            settings.engine,
            python=settings.python_path,
            grace_s=settings.grace_s,
            stall_s=settings.stall_s,
            env=env,
        )

    def upload(self, field: str, path: Path) -> str:
        """Keep a local file where the engine looks for it; gives the reference to it.

        Raises:
            InputRejected: not a picture or video that we take; the problem names `field`.
        """
        probe(path, field=field)  # what is wrong is said before the engine loads
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._uploads.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self._uploads / digest)
        return f"upload:{digest}"

    def run(
        self,
        workflow: Workflow[Any],
        params: Mapping[str, Any],
        progress: ProgressLine,
        interrupt: Interrupt,
    ) -> Result:
        """Start the engine, run the job, stop the engine.

        Raises:
            InvalidParams: a parameter is wrong.
            ModelMissing: files of the model, or of a LoRA, are not here.
            EngineDied: the engine could not be started, or died.
        """
        here = [row.id for row in workflow.models if catalog.is_ready(row, self._models_dir)]
        # What is wrong is said before the engine loads.
        parsed = workflow.parse(params, ready=here)
        row = workflow.choose(parsed.model, here)
        if not row.demo and (lacks := missing(row, self._models_dir)):
            raise lacks
        shelf = LoraShelf(self._settings)
        shelf.check(row.id, workflow.id, parsed.lora_parts(), all_here=True)
        progress.show(Shown(stage="starting"))
        try:
            with _stderr_to(self._log):
                self._process.start()
            ready = self._process.wait_ready().models
            settled = workflow.parse(params, ready=ready)
            job = Job(
                workflow=workflow.id,
                params=settled.model_dump(mode="json"),
                attempt=1,
                plan=workflow.plan(settled),
            )
            event = self._run(job, progress, interrupt)
        except EngineDied as error:
            words = self._log.read_text("utf-8", "replace")[-_LAST_WORDS:].strip()
            raise EngineDied(error.exit_code, f"{error.message}\n{words}") from error
        finally:
            # Not close(): outputs are stored by now, and an engine that loads does not listen.
            self._process.kill()
        return Result(job=job, event=event, file=lambda artifact: self._outputs / artifact.url)

    @property
    def _models_dir(self) -> Path:
        return self._settings.models_dir

    @property
    def _log(self) -> Path:
        return self._scratch / "engine.log"

    def _run(self, job: Job, progress: ProgressLine, interrupt: Interrupt) -> TerminalEvent:
        def verdict() -> Verdict:
            return "cancel" if interrupt.asked else "go"

        def on_event(event: Event) -> Verdict:
            if isinstance(event, Progress):
                progress.show(shown(event))
            return verdict()

        with interrupt:
            event = self._process.run(job, on_event=on_event, beat=verdict, beat_s=_BEAT_S)
        return event or Cancelled(job_id=job.id)


def shown(event: Progress) -> Shown:
    """A progress event as the command line shows it."""
    return Shown(
        stage=event.stage.value,
        step=event.step,
        steps=event.steps,
        fraction=event.fraction,
        eta_s=event.eta_s,
    )


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """What is started inside writes its log to a file, so that it can't break the progress line."""
    kept = os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.dup2(log, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(log)
