"""The embedded server: private, one to a folder, dies with its parent, survives bad files."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.valkey_server import ValkeyServer, running_valkey, spawn
from core.errors import ConfigError
from core.queue_keys import CLIENT_OPTIONS
from tests.support.processes import marked, new_mark
from tests.support.wait import wait_until


def client(server: ValkeyServer) -> Any:
    return redis.Redis.from_url(server.url, **CLIENT_OPTIONS)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """The append-only folder of a server that ended, with 2000 entries in it."""
    with running_valkey(tmp_path) as server, client(server) as at:
        for n in range(1000):
            at.xadd("s", {"n": n, "text": "x" * 50})
        at.bgrewriteaof()
        wait_until(lambda: not at.info("persistence")["aof_rewrite_in_progress"])
        for n in range(1000):
            at.xadd("s", {"n": n, "text": "x" * 50})
    return server.folder / "appendonlydir"


async def test_it_answers_at_its_url(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as server, client(server) as at:
        assert await server.ready()
        assert at.set("key", "value")
        assert server.url.startswith("unix:///")
    assert not await server.ready()


def test_what_was_written_is_there_after_a_kill(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path)
    process = spawn(server)
    with client(server) as at:
        at.set("key", "value")
    process.kill()
    process.wait()
    server.release()
    with running_valkey(tmp_path) as again, client(again) as at:
        assert at.get("key") == "value"
        settings = at.config_get("append*", "maxmemory*", "save", "port")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["maxmemory"] == str(512 * 1024**2)
    assert settings["save"] == ""
    assert settings["port"] == "0"


def test_nobody_else_may_read_its_files_or_connect(tmp_path: Path) -> None:
    with running_valkey(tmp_path, port=free_port()) as server:
        assert mode(server.folder) == 0o700
        assert mode(server.socket) == 0o700
        assert mode(server.folder / "valkey.conf") == 0o600
        assert mode(server.folder / "password") == 0o600


def test_a_port_is_on_loopback_and_needs_the_password(tmp_path: Path) -> None:
    port = free_port()
    with running_valkey(tmp_path, port=port) as server:
        with client(server) as at:
            assert at.ping()
            assert at.config_get("bind")["bind"] == "127.0.0.1"
        assert f"127.0.0.1:{port}" in server.url
        with (
            redis.Redis(port=port, retry=Retry(NoBackoff(), 0), **CLIENT_OPTIONS) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
        password = (server.folder / "password").read_text()
        assert not any(password in argument for argument in server.argv())


def test_the_password_stays_the_same(tmp_path: Path) -> None:
    first = ValkeyServer(tmp_path, port=1)
    assert first.url == ValkeyServer(tmp_path, port=1).url


def test_a_second_server_on_the_folder_is_refused(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as server:
        with pytest.raises(ConfigError, match=str(server.folder)):
            ValkeyServer(tmp_path).prepare()
        server.prepare()
        assert server.answers()
    ValkeyServer(tmp_path).prepare()


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    mark = new_mark()
    code = (
        "import sys, pathlib, os, signal\n"
        "from controlplane.valkey_server import ValkeyServer, spawn\n"
        "spawn(ValkeyServer(pathlib.Path(sys.argv[1])))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=mark, check=False)
    assert parent.returncode == -9
    wait_until(lambda: not marked(mark))
    with running_valkey(tmp_path) as server:
        assert server.answers()


def test_a_deep_folder_gets_its_socket_in_a_short_private_one(tmp_path: Path) -> None:
    deep = tmp_path / ("long folder " * 10)
    with running_valkey(deep) as server, client(server) as at:
        assert at.ping()
        assert len(str(server.socket)) < 100
        assert mode(server.socket.parent) == 0o700
        assert ValkeyServer(deep).socket == server.socket
    server.socket.parent.rmdir()


def test_a_file_in_place_of_the_socket_folder_is_refused(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / ("x" * 120))
    server.socket.parent.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="belongs to this user"):
        server.prepare()
    server.socket.parent.unlink()


def test_a_log_that_was_cut_off_loads_without_its_last_entry(damaged: Path) -> None:
    log = next(damaged.glob("*.incr.aof"))
    log.write_bytes(log.read_bytes()[:-7])
    with running_valkey(damaged.parent.parent) as server, client(server) as at:
        assert at.xlen("s") == 1999


@pytest.mark.parametrize("name", ["*.incr.aof", "*.base.rdb", "*.manifest"])
def test_unreadable_files_are_set_aside_and_it_starts_empty(damaged: Path, name: str) -> None:
    file = next(damaged.glob(name))
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    file.write_bytes(content)
    with running_valkey(damaged.parent.parent) as server, client(server) as at:
        assert at.dbsize() == 0
        (aside,) = server.folder.glob("appendonlydir.unreadable-*")
        assert (aside / file.name).read_bytes() == content


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
