"""Jobs that have ended cost no memory: not in the control plane, not in Valkey."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
import redis

from controlplane.valkey_server import ValkeyServer
from core.queue_keys import CLIENT_OPTIONS
from tests.support.stack import Stack, running_stack

pytestmark = [pytest.mark.serial, pytest.mark.slow, pytest.mark.timeout(240)]

FEW: Final = 10
MANY: Final = 200
PAGE_MAX_BYTES: Final = 150_000_000
VALKEY_SLACK: Final = 1.08
"""Clients' buffers come and go; without forgetting, 190 jobs add 60 %."""
PAGE_SLACK: Final = 1.05
"""200 records on disk have some 600 KB of TinyDB's copy in memory."""


def resident_bytes(stack: Stack, role: str) -> int:
    pid = next(pid for pid, found in stack.parts().items() if found == role)
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def valkey_bytes(stack: Stack) -> int:
    url = ValkeyServer(stack.folder / "data").url
    with redis.Redis.from_url(url, **CLIENT_OPTIONS) as client:
        client.execute_command("MEMORY", "PURGE")
        return int(client.info("memory")["used_memory"])


def do_jobs(stack: Stack, count: int) -> None:
    ids = [stack.submit("sleeper", steps=5) for _ in range(count)]
    for job_id in ids:
        assert stack.until(job_id, "completed", "failed")["status"] == "completed"


def test_200_finished_jobs_leave_no_more_behind_than_10(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        do_jobs(stack, FEW)
        page, valkey = resident_bytes(stack, "page"), valkey_bytes(stack)
        do_jobs(stack, MANY - FEW)
        assert resident_bytes(stack, "page") < PAGE_MAX_BYTES
        assert resident_bytes(stack, "page") <= page * PAGE_SLACK
        assert valkey_bytes(stack) <= valkey * VALKEY_SLACK
