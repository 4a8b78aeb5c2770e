"""Settings of a worker process: where its queue is, how it holds jobs, and which engine it runs."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from core.config import CoreConfig, Env, core_fields
from core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerConfig(CoreConfig):
    """What `handler.pod` is told by the environment.

    Attributes:
        worker_id: unique among the workers of one queue (DIFFBOX_WORKER_ID; host name and
            process id when not set).
        valkey_url: the queue's address (DIFFBOX_VALKEY_URL).
        lease_s: a job whose worker was silent for so long is given to another one.
        beat_s: how often the worker renews its lease; at most a third of it.
        grace_s: how long a cancelled job may take to end by itself before its process is killed.
        stall_s: a job that tells nothing for so long hangs, and its process is killed.
        max_crashes: a job that has cost so many workers is not tried again.
        drain_s: how long a running job may go on after SIGTERM before it is given back.
        retry_delay_s: the wait before a failed job's first retry; doubles with each one.
        engine: the engine's factory, "package.module:function" (DIFFBOX_ENGINE).
    """

    worker_id: str
    valkey_url: str = "redis://127.0.0.1:6379/0"
    lease_s: float = 30.0
    beat_s: float = 5.0
    grace_s: float = 10.0
    stall_s: float = 900.0
    max_crashes: int = 3
    drain_s: float = 5.0
    retry_delay_s: float = 5.0
    engine: str = "handler.compose:build_engine"


def from_env(values: Mapping[str, str] | None = None, *, pid: int = 0) -> WorkerConfig:
    """The worker's settings from the environment.

    Args:
        values: variables to read instead of the process's own.
        pid: makes the default worker id unique on this host.

    Raises:
        ConfigError: a variable is set to something unusable; the message names it.
    """
    env = Env(values)
    lease_s = env.seconds("DIFFBOX_LEASE_S", 30.0, low=1.0)
    beat_s = env.seconds("DIFFBOX_BEAT_S", min(5.0, lease_s / 6), low=0.1)
    if beat_s > lease_s / 3:
        raise ConfigError(
            f"DIFFBOX_BEAT_S={beat_s:g} is over a third of the lease of {lease_s:g} s"
        )
    engine = env.text("DIFFBOX_ENGINE", "handler.compose:build_engine")
    if not all(engine.partition(":")):
        raise ConfigError(f'DIFFBOX_ENGINE={engine!r} is not "package.module:function"')
    return WorkerConfig(
        **core_fields(env),
        worker_id=env.text("DIFFBOX_WORKER_ID", f"{socket.gethostname()}-{pid}"),
        valkey_url=env.text("DIFFBOX_VALKEY_URL", "redis://127.0.0.1:6379/0"),
        lease_s=lease_s,
        beat_s=beat_s,
        grace_s=env.seconds("DIFFBOX_GRACE_S", 10.0),
        stall_s=env.seconds("DIFFBOX_STALL_S", 900.0, low=10.0),
        max_crashes=env.integer("DIFFBOX_MAX_CRASHES", 3, low=1, high=100),
        drain_s=env.seconds("DIFFBOX_DRAIN_S", 5.0),
        retry_delay_s=env.seconds("DIFFBOX_RETRY_DELAY_S", 5.0),
        engine=engine,
    )
