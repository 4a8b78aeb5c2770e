"""Supervisor: starts children in order, keeps them alive, stops them in reverse order.

    start   rank 0 ──ready──> rank 1 ──ready──> rank 2         (Valkey, then workers, then UI)
    stop    rank 2 ──gone───> rank 1 ──gone───> rank 0         SIGTERM, grace, SIGKILL

It can be a container's PID 1. Each child has its own session, so Ctrl-C reaches only us, and
dies with us even if we are killed with SIGKILL. A second SIGINT or SIGTERM skips the grace.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controlplane.processes import dies_with_parent, kill_group, reap_orphans
from core.errors import EX_CONFIG, DiffboxError

log = logging.getLogger(__name__)

POLL_S: Final = 0.05


class StartFailed(DiffboxError):
    """A child could not be started or never got ready. Everything was stopped again."""

    code = "start_failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    """A process to keep alive.

    Attributes:
        name: in logs and messages.
        argv: program and arguments.
        env: its whole environment; ours when None.
        rank: children of a lower rank are ready before this one starts and stop after it.
        prepare: called before each start, in a thread; what it raises fails the start.
        ready: whether the child can be used; None when being started is enough.
        ready_timeout_s: how long it may take to get ready.
        tries: how often it is started before the first start counts as failed.
        stop_signal: asks it to end.
        grace_s: how long it may take to end before it is killed.
        hint: what a user can look at when it does not start; names variables and values.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    rank: int = 0
    prepare: Callable[[], object] | None = None
    ready: Callable[[], Awaitable[bool]] | None = None
    ready_timeout_s: float = 60.0
    tries: int = 1
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 10.0
    hint: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """How long to wait before a child is started again: doubled each time, ± a quarter."""

    first_s: float = 0.2
    longest_s: float = 30.0
    stable_s: float = 10.0
    """A child that lived so long starts from `first_s` again."""

    def delay_s(self, failures: int) -> float:
        """The wait after the n-th death in a row, n from 1."""
        doubled = self.first_s * 2.0 ** min(failures - 1, 16)
        return min(self.longest_s, doubled) * random.uniform(0.75, 1.25)


@dataclass(slots=True)
class _Kept:
    """A child as it is now."""

    child: Child
    pid: int | None = None
    failures: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it has been ready for the first time."""
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Keeps children alive until SIGINT, SIGTERM or SIGHUP.

    Args:
        children: in any order; `rank` counts.
        say: takes lines for people.
        on_up: called once, when all children are ready.
        backoff: waits between restarts.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        say: Callable[[str], None] = lambda _: None,
        on_up: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._kept = [_Kept(child) for child in children]
        self._ranks = sorted({child.rank for child in children})
        self._say = say
        self._on_up = on_up
        self._backoff = backoff or Backoff()
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._failure: StartFailed | None = None
        self._spawning = 0
        self._child_died = asyncio.Event()

    async def run(self) -> None:
        """Start, keep, stop. Returns when nothing is left running.

        Raises:
            StartFailed: a child could not be started, was never ready, or has wrong settings.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)
        reaper = self._start_reaper(loop)
        try:
            await self._start_all()
            await self._stop.wait()
        finally:
            await self._stop_all()
            if reaper:
                reaper.cancel()
        for kept in self._kept:
            if kept.task:
                kept.task.result()  # a bug of ours shows here, not as a child that is missing
        if self._failure:
            raise self._failure

    def stop(self) -> None:
        """Ask for an orderly stop, as SIGTERM does."""
        self._stop.set()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            self._say("stopping at once")
            self._force.set()
        else:
            self._say("stopping (once more to stop at once)")
        log.info("signal", extra={"signal": number.name, "again": self._force.is_set()})
        self._stop.set()

    # --- order ---------------------------------------------------------------------------------

    async def _start_all(self) -> None:
        for rank in self._ranks:
            kept = [k for k in self._kept if k.child.rank == rank]
            for one in kept:
                one.task = asyncio.create_task(self._keep(one))
                one.task.add_done_callback(lambda _: self._stop.set())
            for one in kept:
                if not await self._unless_stopped(one.up.wait()):
                    return
        self._on_up()

    async def _stop_all(self) -> None:
        for rank in reversed(self._ranks):
            tasks = []
            for kept in self._kept:
                if kept.child.rank == rank and kept.task:
                    kept.stop.set()
                    tasks.append(kept.task)
            if tasks:
                await asyncio.wait(tasks)
        log.info("all stopped")

    async def _unless_stopped(self, what: Awaitable[object]) -> bool:
        """Wait for `what`; False when the stop came first."""
        return await _first(what, self._stop.wait()) and not self._stop.is_set()

    def _fail(self, child: Child, message: str) -> None:
        hint = f" ({child.hint})" if child.hint else ""
        self._failure = self._failure or StartFailed(f"{child.name} {message}{hint}")
        log.error("start failed", extra={"child": child.name, "error": message})
        self._stop.set()

    # --- one child -----------------------------------------------------------------------------

    async def _keep(self, kept: _Kept) -> None:
        """Start the child again and again until it is told to stop."""
        while not kept.stop.is_set():
            began = time.monotonic()
            problem = await self._live(kept)
            if kept.stop.is_set():
                return
            lived_s = time.monotonic() - began
            kept.failures = 1 if lived_s >= self._backoff.stable_s else kept.failures + 1
            given_up = not kept.up.is_set() and kept.failures >= kept.child.tries
            if given_up or problem == _exit_words(EX_CONFIG):
                self._fail(kept.child, problem)
                return
            delay_s = self._backoff.delay_s(kept.failures)
            fields = {"lived_s": round(lived_s, 2), "restart_in_s": round(delay_s, 2)}
            log.warning("child ended", extra={"child": kept.child.name, "how": problem, **fields})
            self._say(f"{kept.child.name} {problem}; starting it again in {delay_s:.1f} s")
            await _first(kept.stop.wait(), asyncio.sleep(delay_s))

    async def _live(self, kept: _Kept) -> str:
        """One life, from spawn until its process group is gone; how it ended, in words."""
        child = kept.child
        try:
            process = await self._spawn(kept)
        except (OSError, DiffboxError) as error:
            return f"can't be started: {error}"
        gone = asyncio.ensure_future(process.wait())
        late = ""
        try:
            if not await self._becomes_ready(kept, gone) and not gone.done():
                late = f"was not ready within {child.ready_timeout_s:g} s"
            elif not gone.done():
                await _first(asyncio.shield(gone), kept.stop.wait())
            if not gone.done() and not late:
                await self._end(child, process, gone)
        finally:
            kill_group(process.pid)
            code = await gone
            kept.pid = None
        if kept.stop.is_set():
            log.info("child stopped", extra={"child": child.name, "code": code})
        return late or _exit_words(code)

    async def _spawn(self, kept: _Kept) -> asyncio.subprocess.Process:
        child = kept.child
        if child.prepare:
            await asyncio.to_thread(child.prepare)
        self._spawning += 1
        try:
            process = await asyncio.create_subprocess_exec(
                *child.argv,
                env=child.env,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=dies_with_parent(),
            )
            kept.pid = process.pid
        finally:
            self._spawning -= 1
        log.info("child started", extra={"child": child.name, "child_pid": process.pid})
        return process

    async def _becomes_ready(self, kept: _Kept, gone: asyncio.Future[int]) -> bool:
        """Poll the ready check; True also when a stop makes it pointless to go on."""
        child = kept.child
        deadline = time.monotonic() + child.ready_timeout_s
        while child.ready and not kept.stop.is_set():
            if gone.done() or time.monotonic() > deadline:
                return False
            if await child.ready():
                break
            await _first(kept.stop.wait(), asyncio.sleep(POLL_S))
        if not kept.stop.is_set():
            log.info("child ready", extra={"child": child.name})
            kept.up.set()
        return True

    async def _end(
        self, child: Child, process: asyncio.subprocess.Process, gone: asyncio.Future[int]
    ) -> None:
        """Ask the child to end; the caller kills it if it is still there afterwards."""
        try:
            process.send_signal(child.stop_signal)
        except ProcessLookupError:
            return
        grace = asyncio.sleep(child.grace_s)
        await _first(asyncio.shield(gone), self._force.wait(), grace)
        if not gone.done():
            log.warning("child killed", extra={"child": child.name, "grace_s": child.grace_s})

    # --- PID 1 ---------------------------------------------------------------------------------

    def _start_reaper(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
        if os.getpid() != 1:
            return None
        loop.add_signal_handler(signal.SIGCHLD, self._child_died.set)
        return asyncio.create_task(self._reap())

    async def _reap(self) -> None:
        """Reap orphans whenever something died; never the children that asyncio waits for."""
        while True:
            await self._child_died.wait()
            self._child_died.clear()
            again = self._spawning > 0  # a child that asyncio has, but we don't know yet
            if not again:
                reaped, again = reap_orphans({k.pid for k in self._kept if k.pid})
                if reaped:
                    log.info("orphans reaped", extra={"count": reaped})
            if again:
                await asyncio.sleep(POLL_S)
                self._child_died.set()


async def _first(*awaitables: Awaitable[object]) -> bool:
    """Wait until one is done and drop the others; whether it was the first of them."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0] in done
    finally:
        for task in tasks:
            task.cancel()


def _exit_words(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
