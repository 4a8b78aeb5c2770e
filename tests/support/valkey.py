"""A real Valkey for tests: one server a module, emptied between tests, watched for lost keys.

Import the fixtures into a test module: `from tests.support.valkey import queue, valkey`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from controlplane.valkey_server import ValkeyServer, spawn
from core.protocol import LANES, TERMINAL
from core.queue import Queue
from core.queue_keys import CLIENT_OPTIONS, DELAYED, PERMANENT, PREFIX, Rules, lane_key
from tests.support.wait import wait_until

LEASE_S = 1.5
RULES = Rules(lease_s=LEASE_S, retry_delay_s=0.1, lane_limit=50)


class Valkey:
    """A server that a test may kill and start again on the same data."""

    def __init__(self, folder: Path) -> None:
        self.server = ValkeyServer(folder)
        self.url = self.server.url
        self._process: subprocess.Popen[bytes] | None = spawn(self.server)

    def kill(self) -> None:
        """As a power failure or the kernel would do it."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def start(self) -> None:
        """Again, on what is in the folder."""
        self._process = spawn(self.server)

    def close(self) -> None:
        """Kill it and give the folder back."""
        self.kill()
        self.server.release()

    def wait_until_leases_count(self) -> None:
        """After a start, no lease is taken away for the time of one lease."""
        with redis.Redis.from_url(self.url, **CLIENT_OPTIONS) as client:
            wait_until(lambda: uptime_s(client) > LEASE_S + 1, timeout_s=LEASE_S + 5)


@pytest.fixture(scope="module")
def module_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.close()


@pytest.fixture
def valkey(module_valkey: Valkey) -> Iterator[Valkey]:
    """An empty server; fails the test that leaves keys which never go away."""
    with redis.Redis.from_url(module_valkey.url, **CLIENT_OPTIONS) as client:
        client.flushall()
        yield module_valkey
        assert leaked(client) == {}


@pytest.fixture
def queue(valkey: Valkey) -> Iterator[Queue]:
    """The queue on that server, with a short lease."""
    made = Queue.connect(valkey.url, RULES)
    made.prepare()
    yield made
    made.client.close()


def uptime_s(client: Any) -> int:
    """How long the server runs, in whole seconds."""
    return int(client.info("server")["uptime_in_seconds"])


def leaked(client: Any) -> dict[str, str]:
    """Keys that would stay for ever, and why that is wrong."""
    waiting = set(client.zrange(DELAYED, 0, -1))
    for lane in LANES:
        if client.exists(lane_key(lane)):
            waiting |= {fields["job"] for _, fields in client.xrange(lane_key(lane))}
    found = {}
    for key in client.scan_iter():
        if key in PERMANENT or client.ttl(key) >= 0:
            continue
        kind, _, name = key.removeprefix(f"{PREFIX}:").partition(":")
        if kind not in {"job", "ev"}:
            found[key] = "is not listed as permanent and has no TTL"
        elif name not in waiting:
            found[key] = "its job is in no lane and can't end"
        elif client.hget(f"{PREFIX}:job:{name}", "status") in TERMINAL:
            found[key] = "its job has ended and it has no TTL"
    return found
