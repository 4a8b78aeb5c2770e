"""The supervisor, run as a real process over real children, and killed in every way."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.supervisor import Backoff
from tests.support.processes import alive, marked, new_mark
from tests.support.wait import wait_until

STAY = ["sleep", "600"]
DEAF = ["sh", "-c", "trap '' TERM; echo deaf >&2; while :; do sleep 600; done"]


class Supervised:
    """A running supervisor: its process, its log, its children."""

    def __init__(self, folder: Path, children: list[dict[str, Any]], prefix: list[str]) -> None:
        self.mark = new_mark()
        self.log_file = folder / "log"
        self.said_file = folder / "said"
        argv = [sys.executable, "-m", "tests.support.supervise", json.dumps(children)]
        with self.log_file.open("wb") as log, self.said_file.open("wb") as said:
            env = {**os.environ, **self.mark}
            self.process = subprocess.Popen([*prefix, *argv], stdout=said, stderr=log, env=env)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self.log_file.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event for event in events if event["event"] == name]

    def until(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        return wait_until(lambda: found if len(found := self.events(name)) >= count else [])

    def pid_of(self, child: str) -> int:
        started = [e for e in self.until("child started") if e["child"] == child]
        return int(started[-1]["child_pid"])

    def up(self) -> None:
        wait_until(lambda: "up" in self.said_file.read_text().splitlines())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Supervised] = []

    def begin(*children: dict[str, Any], prefix: tuple[str, ...] = ()) -> Supervised:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(Supervised(folder, list(children), list(prefix)))
        return running[-1]

    yield begin
    for supervised in running:
        for pid in marked(supervised.mark):
            with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.kill(pid, signal.SIGKILL)
        supervised.process.wait(timeout=20)


def child(name: str, argv: list[str], **values: Any) -> dict[str, Any]:
    return {"name": name, "argv": argv, **values}


def test_backoff_doubles_within_a_quarter_up_to_its_longest() -> None:
    backoff = Backoff(first_s=1, longest_s=6)
    for failures, around in ((1, 1), (2, 2), (3, 4), (4, 6), (400, 6)):
        assert around * 0.75 <= backoff.delay_s(failures) <= around * 1.25


def test_a_rank_starts_only_when_the_one_before_is_ready(start: Start, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    supervised = start(child("first", STAY, ready_file=str(ready)), child("second", STAY, rank=1))
    supervised.until("child started")
    assert [e["child"] for e in supervised.events("child started")] == ["first"]
    ready.touch()
    supervised.up()
    assert [e["child"] for e in supervised.events("child started")] == ["first", "second"]


def test_stop_goes_in_reverse_order_and_ends_with_0(start: Start) -> None:
    supervised = start(
        child("valkey", STAY), child("worker", STAY, rank=1), child("ui", STAY, rank=2)
    )
    supervised.up()
    assert supervised.stop() == 0
    assert [e["child"] for e in supervised.events("child stopped")] == ["ui", "worker", "valkey"]
    assert marked(supervised.mark) == {}


def test_a_child_that_dies_again_and_again_is_started_after_longer_and_longer_waits(
    start: Start,
) -> None:
    supervised = start(child("flaky", ["sh", "-c", "exit 3"]))
    ended = supervised.until("child ended", 4)
    waits = [event["restart_in_s"] for event in ended[:4]]
    assert waits[3] > 3 * waits[0]
    assert ended[0]["how"] == "ended with exit code 3"
    assert "flaky ended with exit code 3; starting it again in" in supervised.said_file.read_text()


def test_a_child_that_was_killed_comes_back(start: Start) -> None:
    supervised = start(child("worker", STAY))
    supervised.up()
    first = supervised.pid_of("worker")
    os.kill(first, signal.SIGKILL)
    supervised.until("child started", 2)
    assert supervised.pid_of("worker") != first
    assert supervised.events("child ended")[0]["how"] == "was killed by SIGKILL"


def test_what_a_dead_child_leaves_in_its_group_is_killed(start: Start, tmp_path: Path) -> None:
    """A worker that is killed must not leave its engine on the GPU."""
    note = tmp_path / "pid"
    supervised = start(child("worker", ["sh", "-c", f"sleep 600 & echo $! >{note}; wait"]))
    grandchild = int(wait_until(lambda: note.exists() and note.read_text().strip()))
    os.kill(supervised.pid_of("worker"), signal.SIGKILL)
    wait_until(lambda: not alive(grandchild))


def test_a_deaf_child_is_killed_at_its_grace(start: Start) -> None:
    supervised = start(child("deaf", DEAF, grace_s=0.3))
    wait_until(lambda: "deaf" in supervised.log_file.read_text().splitlines())
    assert supervised.stop() == 0
    assert supervised.events("child killed")[0]["grace_s"] == 0.3
    assert marked(supervised.mark) == {}


def test_a_second_signal_does_not_wait_for_the_grace(start: Start) -> None:
    supervised = start(child("deaf", DEAF, grace_s=60))
    wait_until(lambda: "deaf" in supervised.log_file.read_text().splitlines())
    supervised.process.send_signal(signal.SIGINT)
    supervised.until("signal")
    assert supervised.stop(signal.SIGINT) == 0
    assert marked(supervised.mark) == {}


def test_a_stop_while_a_child_gets_ready_ends_at_once(start: Start, tmp_path: Path) -> None:
    supervised = start(child("slow", STAY, ready_file=str(tmp_path / "never")))
    supervised.until("child started")
    assert supervised.stop() == 0
    assert marked(supervised.mark) == {}


def test_a_child_that_is_never_ready_stops_the_start_and_says_where_to_look(
    start: Start, tmp_path: Path
) -> None:
    never = str(tmp_path / "never")
    supervised = start(
        child("valkey", STAY),
        child("ui", STAY, rank=1, ready_file=never, ready_timeout_s=0.3, hint="DIFFBOX_PORT=80"),
    )
    assert supervised.process.wait(timeout=20) == 1
    message = "error: ui was not ready within 0.3 s (DIFFBOX_PORT=80)"
    assert message in supervised.log_file.read_text()
    assert marked(supervised.mark) == {}


def test_a_child_with_a_second_try_may_fail_its_first_start(start: Start, tmp_path: Path) -> None:
    """Valkey sets files aside that it could not read, and starts without them."""
    marker, ready = tmp_path / "marker", tmp_path / "ready"
    script = f"[ -e {marker} ] || {{ touch {marker}; exit 1; }}; touch {ready}; exec sleep 600"
    supervised = start(child("valkey", ["sh", "-c", script], ready_file=str(ready), tries=2))
    supervised.up()
    assert len(supervised.events("child started")) == 2


def test_a_program_that_is_missing_stops_the_start(start: Start) -> None:
    supervised = start(child("valkey", STAY), child("worker", ["/no/such/program"], rank=1))
    assert supervised.process.wait(timeout=20) == 1
    assert "error: worker can't be started:" in supervised.log_file.read_text()
    assert marked(supervised.mark) == {}


def test_a_child_with_wrong_settings_is_not_started_again(start: Start) -> None:
    supervised = start(child("valkey", STAY), child("worker", ["sh", "-c", "exit 78"], rank=1))
    assert supervised.process.wait(timeout=20) == 1
    assert "error: worker ended with exit code 78" in supervised.log_file.read_text()
    assert len(supervised.events("child started")) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of our death")
def test_kill_9_of_the_supervisor_takes_all_children_along(start: Start) -> None:
    supervised = start(child("valkey", STAY), child("deaf", DEAF, rank=1))
    supervised.up()
    pids = [supervised.pid_of("valkey"), supervised.pid_of("deaf")]
    supervised.process.kill()
    supervised.process.wait(timeout=20)
    wait_until(lambda: not any(map(alive, pids)))


PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
ORPHANER = """
import os, select
for n in range(5):
    if os.fork() == 0:
        if os.fork() == 0:
            while os.getppid() != 1:
                select.select([], [], [], 0.02)
        os._exit(0)
    os.wait()
while {"1", str(os.getpid())} != set(filter(str.isdigit, os.listdir("/proc"))):
    select.select([], [], [], 0.02)
os._exit(7)
"""


def may_unshare() -> bool:
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*PID_1, "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="may not make a PID namespace here")
def test_as_pid_1_it_reaps_orphans_and_keeps_the_exit_codes(start: Start) -> None:
    supervised = start(child("orphaner", [sys.executable, "-c", ORPHANER]), prefix=PID_1)
    ended = supervised.until("child ended")
    assert ended[0]["how"] == "ended with exit code 7"
    assert sum(event["count"] for event in supervised.events("orphans reaped")) == 5
