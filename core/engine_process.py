"""EngineProcess: the parent's handle on the spawned, killable child that holds the engine.

    parent (holds the lease)                          child (holds the device and the weights)
      job, cancel, steer, exit  ── JSON lines, socketpair ──>  core.engine_child
      <──── ready, progress…, one terminal event

The child stays warm between jobs. Cancel is a flag first; a child that does not end the job
within the grace period is killed and a new one is spawned for the next job. So a killed
child costs one job and is seen at once, a hung one is killed after `stall_s`, and the parent's
lease never depends on the child's GIL.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal

from core.errors import ConfigError, DiffboxError, JobTimeout
from core.protocol import (
    TERMINAL_EVENTS,
    Cancelled,
    EngineState,
    Event,
    Job,
    Plan,
    TerminalEvent,
    failed,
    parse_event,
)

log = logging.getLogger(__name__)

Verdict = Literal["go", "cancel", "lost"]
"""What the caller says to an event or a beat: on, end the job, or it is somebody else's now."""

_POLL_S: Final = 0.25
"""How soon a kill that became due is done; events are never delayed by it."""


class EngineDied(DiffboxError):
    """The child ended by itself in the middle of a job, or never started."""

    code = "worker_lost"
    retryable = True

    def __init__(self, exit_code: int | None, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class EngineProcess:
    """One engine in a child process. Used from one thread; `cancel` and `steer` from any.

    Args:
        factory: "package.module:function" that builds the Engine, called inside the child.
        python: the interpreter of the child.
        grace_s: how long a cancelled job may take to end before the child is killed.
        stall_s: a job that tells nothing for so long hangs: its child is killed. Loading a file
            of 30 GB from a slow volume is the longest silence that is fine.
        env: the child's environment; this process's own when None.
    """

    def __init__(
        self,
        factory: str,
        *,
        python: str = sys.executable,
        grace_s: float = 10.0,
        stall_s: float = 900.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._factory = factory
        self._python = python
        self._grace_s = grace_s
        self._stall_s = stall_s
        self._env = dict(env) if env is not None else None
        self._child: subprocess.Popen[bytes] | None = None
        self._lines: JsonLines | None = None
        self._state: EngineState | None = None
        self._job: Job | None = None
        self._kill_at: float | None = None
        self._lost = False
        self._lock = threading.Lock()
        self._oom_kills = 0

    @property
    def pid(self) -> int | None:
        """The child's process id, None when there is none."""
        return self._child.pid if self._child else None

    @property
    def state(self) -> EngineState | None:
        """What the engine can do, once it was ready."""
        return self._state

    def start(self) -> None:
        """Spawn the child, if there is none, and return at once.

        Call it from a thread that lives as long as the child: the parent-death signal is bound
        to the thread that spawned it.
        """
        if self._child and self._child.poll() is None:
            return
        self._forget()
        ours, theirs = socket.socketpair()
        self._oom_kills = _oom_kills()
        argv = [self._python, "-m", "core.engine_child", str(theirs.fileno()), str(os.getpid())]
        with theirs, ExitStack() as undo:
            undo.callback(ours.close)
            self._child = subprocess.Popen(
                [*argv, self._factory],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_fileno(sys.stderr) else subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            undo.pop_all()
        self._lines = JsonLines(ours)

    def wait_ready(self, timeout_s: float = 120) -> EngineState:
        """Wait until the engine is built.

        Raises:
            EngineDied: it could not be built, or not in time.
            ConfigError: the child says that a setting is wrong.
        """
        self.start()
        deadline = time.monotonic() + timeout_s
        while self._state is None:
            left = deadline - time.monotonic()
            if left <= 0:
                self.kill()
                raise EngineDied(None, f"the engine was not ready within {timeout_s:g} s")
            self._receive(min(left, _POLL_S))
        return self._state

    def run(
        self,
        job: Job,
        *,
        on_event: Callable[[Event], Verdict],
        beat: Callable[[], Verdict],
        beat_s: float,
    ) -> TerminalEvent | None:
        """Have the job done and return its terminal event; None when the verdict was "lost".

        A job that hangs fails as `timeout`.

        Args:
            job: what to do.
            on_event: takes every event that is not terminal.
            beat: called when `beat_s` passed without an event.
            beat_s: seconds.

        Raises:
            EngineDied: the child died by itself.
            ConfigError: a new child says that a setting is wrong.
        """
        self.start()
        with self._lock:
            self._job, self._kill_at, self._lost = job, None, False
        try:
            self._send({"type": "job", "job": job.model_dump(mode="json")})
            end = self._until_end(job, on_event, beat, beat_s)
            return None if self._lost else end
        except EngineDied:
            if self._lost:
                return None
            if self._cancelling():  # it died while being cancelled: that is an end, too
                return Cancelled(job_id=job.id)
            raise
        finally:
            with self._lock:
                self._job, self._kill_at = None, None

    def _until_end(
        self,
        job: Job,
        on_event: Callable[[Event], Verdict],
        beat: Callable[[], Verdict],
        beat_s: float,
    ) -> TerminalEvent:
        told_at = time.monotonic()
        next_beat = told_at + beat_s
        while True:
            event = self._receive(max(0.0, min(next_beat - time.monotonic(), _POLL_S)))
            now = time.monotonic()
            if isinstance(event, TERMINAL_EVENTS):
                return event
            if self._kill_at is not None and now >= self._kill_at:
                self.kill()
                return Cancelled(job_id=job.id)
            if event is None and now - told_at > self._stall_s:
                self.kill()
                return failed(job.id, self._stalled())
            if event is not None:
                told_at = now
                verdict = on_event(event)
            elif now >= next_beat:
                verdict = beat()
            else:
                continue
            next_beat = time.monotonic() + beat_s
            self._lost = self._lost or verdict == "lost"
            if verdict != "go":
                self.cancel(job.id)

    def cancel(self, job_id: str) -> None:
        """End this job if it is the running one: flag now, SIGKILL after the grace period.

        Other threads may call it, so a child that is gone is left to `run`.
        """
        with self._lock:
            if self._job is None or self._job.id != job_id or self._kill_at is not None:
                return
            self._kill_at = time.monotonic() + self._grace_s
            lines = self._lines
        try:
            if lines:
                lines.send(json.dumps({"type": "cancel", "job_id": job_id}))
        except OSError:
            log.info("the child was gone when job %s was cancelled", job_id)

    def steer(self, job_id: str, plan: Plan) -> bool:
        """Give the child a new plan if this job is the running one; False when it is not.

        Other threads may call it. A plan can be larger than what the socket holds, so it may
        block while the child does not read: the thread that holds a lease must not call it.
        """
        with self._lock:
            if self._job is None or self._job.id != job_id:
                return False
            lines = self._lines
        message = {"type": "steer", "job_id": job_id, "plan": plan.model_dump(mode="json")}
        try:
            if lines:
                lines.send(json.dumps(message))
        except OSError:
            log.info("the child was gone when job %s was steered", job_id)
        return True

    def _cancelling(self) -> bool:
        return self._kill_at is not None

    def _stalled(self) -> JobTimeout:
        return JobTimeout(f"the job hung: nothing happened for {self._stall_s:g} s")

    def kill(self) -> None:
        """SIGKILL the child and reap it."""
        if self._child:
            self._child.kill()
            self._child.wait()
        self._forget()

    def close(self) -> None:
        """Ask the child to end, kill it after the grace period."""
        if not self._child:
            return
        try:
            self._send({"type": "exit"})
            self._child.wait(self._grace_s)
        except (EngineDied, subprocess.TimeoutExpired):
            log.warning("the engine did not end by itself and is killed")
        self.kill()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            if self._lines is None:
                raise OSError("no child")
            self._lines.send(json.dumps(message))
        except OSError:
            raise self._died() from None

    def _receive(self, timeout_s: float) -> Any | None:
        """The next event, or None: nothing came, or it was the child's "ready"."""
        assert self._lines is not None
        try:
            line = self._lines.receive(timeout_s)
        except (EOFError, OSError):
            raise self._died() from None
        if line is None:
            return None
        raw = json.loads(line)
        if raw.get("type") == "ready":
            self._state = EngineState.model_validate(raw["state"])
            return None
        if raw.get("type") == "config_error":
            self.kill()
            raise ConfigError(raw["message"])
        return parse_event(raw)

    def _died(self) -> EngineDied:
        exit_code = None
        if self._child:
            try:
                exit_code = self._child.wait(5)
            except subprocess.TimeoutExpired:
                self._child.kill()
                exit_code = self._child.wait()
        reason = f"exit code {exit_code}"
        if exit_code is not None and exit_code < 0:
            reason = f"signal {-exit_code}"
            if exit_code == -9 and _oom_kills() > self._oom_kills:
                reason = "killed by the system: out of host memory"
        self._forget()
        return EngineDied(exit_code, f"the engine process died ({reason})")

    def _forget(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, None
        if lines:
            lines.close()
        self._child, self._state = None, None


class JsonLines:
    """Lines of JSON over a stream socket; safe for one reader and several writers."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._write_lock = threading.Lock()

    def send(self, line: str) -> None:
        """Write one line; blocks while the other side's buffer is full."""
        with self._write_lock:
            self._sock.sendall(line.encode() + b"\n")

    def receive(self, timeout_s: float | None) -> str | None:
        """The next line, or None after `timeout_s` (never when None).

        Raises:
            EOFError: the other side is gone.
        """
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._sock], [], [], timeout_s)
            if not readable:
                return None
            chunk = self._sock.recv(65536)
            if not chunk:
                raise EOFError
            self._buffer += chunk
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = bytearray(rest)
        return line.decode()

    def close(self) -> None:
        """Close the socket; the other side reads the end."""
        self._sock.close()


def _oom_kills() -> int:
    """How often the kernel killed for memory in our control group; 0 where that is not told."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _has_fileno(stream: Any) -> bool:
    try:
        return isinstance(stream.fileno(), int)
    except (AttributeError, OSError, ValueError):
        return False
