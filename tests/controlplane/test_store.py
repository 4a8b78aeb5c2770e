"""The records' file: whole after any crash, owned by one, never overwritten when damaged."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controlplane.records import JobRecord, new_record
from controlplane.store import FLUSH_S, AtomicStorage, JobStore
from core.errors import ConfigError
from core.protocol import Job, JobStatus
from tests.support.wait import wait_until, wait_until_async


def record(status: JobStatus = JobStatus.QUEUED, **changes: object) -> JobRecord:
    fresh = new_record(Job(workflow="noop", params={"prompt": "ä"}))
    return fresh.model_copy(update={"status": status, **changes})


async def test_records_and_cursors_are_there_again_after_a_restart(tmp_path: Path) -> None:
    kept = record(JobStatus.RUNNING)
    store = JobStore(tmp_path / "jobs.json")
    store.put(kept, "7-1")
    await store.close()
    again = JobStore(tmp_path / "jobs.json")
    assert again.get(kept.id) == kept and again.cursor(kept.id) == "7-1"
    assert again.unfinished() == [kept.id]
    await again.close()


async def test_a_record_can_be_read_before_it_is_written(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.json")
    kept = record()
    store.put(kept, "")
    assert store.get(kept.id) == kept and not (tmp_path / "jobs.json").exists()
    await store.close()


async def test_changes_are_written_by_themselves_soon(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.json")
    kept = record()
    store.put(kept, "")
    await wait_until_async((tmp_path / "jobs.json").exists, FLUSH_S + 5)
    assert kept.id in (tmp_path / "jobs.json").read_text()  # before close, which writes too
    await store.close()


async def test_a_flush_right_after_a_write_ends(tmp_path: Path) -> None:
    """The write is done and what follows from it is not: waiting for it would go on for ever."""
    store = JobStore(tmp_path / "jobs.json")
    kept = record()
    store.put(kept, "")
    while not ((writing := store._writing) and writing.done()):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await store.flush()
    assert kept.id in (tmp_path / "jobs.json").read_text()
    await store.close()


async def test_many_changes_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    write = AtomicStorage.write

    def counted(self: AtomicStorage, tables: dict[str, dict[str, object]]) -> None:
        nonlocal writes
        writes += 1
        write(self, tables)

    monkeypatch.setattr(AtomicStorage, "write", counted)
    store = JobStore(tmp_path / "jobs.json")
    for _ in range(100):
        store.put(record(), "")
    await store.close()
    assert writes == 1


async def test_waiting_until_it_is_saved_hurries_nothing(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.json")
    store.put(record(), "")
    saved = asyncio.create_task(store.saved())
    await asyncio.sleep(0)
    assert not saved.done() and not (tmp_path / "jobs.json").exists()
    await saved
    assert (tmp_path / "jobs.json").exists()
    await store.saved()
    await store.close()


async def test_progress_and_preview_are_not_written(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.json")
    store.put(record(preview="data:image/webp;base64,AAAA"), "")
    await store.close()
    assert b"AAAA" not in (tmp_path / "jobs.json").read_bytes()


async def test_ids_come_newest_first_by_status_and_from_a_cursor(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.json")
    records = [record(JobStatus.FAILED if n % 2 else JobStatus.COMPLETED) for n in range(6)]
    for one in records:
        store.put(one, "")
    ids = sorted((one.id for one in records), reverse=True)
    assert list(store.newest(before=None, status=None)) == ids
    assert list(store.newest(before=ids[2], status=None)) == ids[3:]
    failed = {one.id for one in records if one.status is JobStatus.FAILED}
    assert set(store.newest(before=None, status=JobStatus.FAILED)) == failed
    await store.close()


async def test_the_oldest_finished_records_go_and_unfinished_ones_stay(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.json", kept=3)
    waiting = record()
    store.put(waiting, "")
    for _ in range(5):
        store.put(record(JobStatus.COMPLETED), "")
    await store.close()
    again = JobStore(tmp_path / "jobs.json")
    assert len(list(again.newest(before=None, status=None))) == 3
    assert again.get(waiting.id)
    await again.close()


@pytest.mark.parametrize("content", [b'{"jobs": {"1": {', b"", b"[]", b'{"jobs": 3}', b"\xff"])
async def test_a_damaged_file_is_set_aside_and_not_overwritten(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "jobs.json").write_bytes(content)
    store = JobStore(tmp_path / "jobs.json")
    store.put(record(), "")
    await store.close()
    [aside] = tmp_path.glob("jobs.json.damaged-*")
    assert aside.read_bytes() == content and "set aside" in caplog.text
    assert len(json.loads((tmp_path / "jobs.json").read_bytes())["jobs"]) == 1


async def test_one_unreadable_record_does_not_hide_the_others(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.json")
    kept = record()
    store.put(kept, "")
    await store.close()
    tables = json.loads((tmp_path / "jobs.json").read_bytes())
    tables["jobs"]["broken"] = {"id": "broken"}
    (tmp_path / "jobs.json").write_text(json.dumps(tables))
    again = JobStore(tmp_path / "jobs.json")
    assert list(again.newest(before=None, status=None)) == [kept.id]
    await again.close()


async def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.json")
    with pytest.raises(ConfigError, match="DIFFBOX_DATA_DIR"):
        JobStore(tmp_path / "jobs.json")
    await store.close()
    await JobStore(tmp_path / "jobs.json").close()


async def test_the_file_is_for_us_only(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.json")
    store.put(record(), "")
    await store.close()
    assert (tmp_path / "jobs.json").stat().st_mode & 0o777 == 0o600


async def test_a_failed_write_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = JobStore(tmp_path / "jobs.json")
    store.put(record(), "")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            await store.flush()
    await wait_until_async(lambda: "can't be written" in caplog.text)
    await store.flush()
    assert (tmp_path / "jobs.json").exists()
    await store.close()


async def test_a_full_disk_is_tried_ever_less_often_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "controlplane.store")
    monkeypatch.setattr("controlplane.store.FLUSH_S", 0.01)
    tries: list[float] = []

    def full(*_: object) -> None:
        tries.append(time.monotonic())
        raise OSError(28, "No space left on device")

    store = JobStore(tmp_path / "jobs.json")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        store.put(record(), "")
        await wait_until_async(lambda: len(tries) == 6)
        pauses = [after - before for before, after in itertools.pairwise(tries)]
        assert all(pause >= 0.02 * 2**n for n, pause in enumerate(pauses))
    await wait_until_async((tmp_path / "jobs.json").exists)
    await store.flush()
    assert caplog.text.count("can't be written") == 1
    assert caplog.text.count("can be written again") == 1
    await store.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
from controlplane.records import new_record
from controlplane.store import JobStore
from core.protocol import Job

async def main():
    store = JobStore(Path(sys.argv[1]))
    while True:
        store.put(new_record(Job(workflow="noop", params={})), "")
        await store.flush()

asyncio.run(main())
"""


def test_the_file_is_whole_after_kill_9_in_the_middle_of_writing(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    seen = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)])
        wait_until(lambda: path.exists() and path.stat().st_size > seen + 5000, 30)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = path.stat().st_size
        assert json.loads(path.read_bytes())["jobs"]
    assert not list(tmp_path.glob("*damaged*"))
