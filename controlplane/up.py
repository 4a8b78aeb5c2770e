"""What `diffbox up` runs: Valkey, workers and the page, as children of one supervisor.

    settings ──check──> Valkey (rank 0) ──> workers (rank 1) ──> page (rank 2) ──> say the address

What is wrong with settings, folders, ports or packages is said before anything is started.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from controlplane.auth import choose_password
from controlplane.config import Settings
from controlplane.supervisor import Child, Supervisor
from controlplane.valkey_server import ValkeyServer
from core.config import Env
from core.errors import ConfigError

UI_PACKAGES: Final = ("fastapi", "itsdangerous", "nicegui", "orjson", "tinydb", "uvicorn")
WORKER_PACKAGES: Final = ("handler", "core", "redis", "pydantic", "imageio_ffmpeg")
ENGINE_PACKAGES: Final = ("torch", "torchvision", "diffsynth")
OWN_ENGINE: Final = "handler.compose:build_engine"

_UI_GRACE_S: Final = 10.0
_WORKER_MARGIN_S: Final = 10.0
"""Beyond what a stopping worker gives its job: time to give the job back and end."""
_VALKEY_GRACE_S: Final = 10.0


async def run(settings: Settings, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Start all, keep it running until SIGINT or SIGTERM, stop it in order.

    Args:
        settings: as read from `environ`.
        environ: variables that the children inherit.
        say: takes lines for people.

    Raises:
        ConfigError: a setting can't work on this computer.
        StartFailed: something did not start.
    """
    settings = check(settings)
    password, is_new = choose_password(settings)

    def tell() -> None:
        say(f"diffbox is ready: {address(settings)}")
        if is_new:
            say(f"Password (made now, shown only once): {password}")

    kept = children(settings, environ, gpus=find_gpus(environ))
    await Supervisor(kept, say=say, on_up=tell).run()
    say("stopped")


def check(settings: Settings) -> Settings:
    """The settings with a port chosen where it was left open.

    Raises:
        ConfigError: names the variable, its value and what is in the way.
    """
    settings = check_page(settings)
    if settings.backend == "memory" or settings.worker_count:
        python, packages = settings.python_path, worker_packages(settings.engine)
        if lacks := missing_packages(python, packages):
            raise ConfigError(lacking(python, lacks, "worker", "DIFFBOX_PYTHON_PATH"))
    if settings.valkey_port and not settings.valkey_url:
        free_port("DIFFBOX_VALKEY_PORT", "127.0.0.1", settings.valkey_port)
    return settings


def check_page(settings: Settings) -> Settings:
    """The same as far as the page alone is concerned.

    Raises:
        ConfigError: as `check`.
    """
    for name, folder in (
        ("DIFFBOX_DATA_DIR", settings.data_dir),
        ("DIFFBOX_OUTPUTS_DIR", settings.outputs_dir),
    ):
        if problem := unwritable(folder):
            raise ConfigError(f"{name}={folder}: {problem}")
    if missing := [package for package in UI_PACKAGES if not find_spec(package)]:
        raise ConfigError(lacking(sys.executable, missing, "ui"))
    return replace(settings, port=free_port("DIFFBOX_PORT", settings.host, settings.port))


def children(settings: Settings, environ: Mapping[str, str], *, gpus: Sequence[str]) -> list[Child]:
    """The processes to keep, each with its environment."""
    env = {**environ, "DIFFBOX_PORT": str(settings.port), "PYTHONUNBUFFERED": "1"}
    if settings.backend == "memory":
        return [_ui(settings, env)]
    kept = []
    if not settings.valkey_url:
        server = ValkeyServer(settings.data_dir, port=settings.valkey_port)
        kept.append(_valkey(server))
        env["DIFFBOX_VALKEY_URL"] = server.url
    kept += [_worker(settings, env, number, gpus) for number in range(settings.worker_count)]
    return [*kept, _ui(settings, env)]


def _valkey(server: ValkeyServer) -> Child:
    return Child(
        name="valkey",
        argv=server.argv(),
        prepare=server.prepare,
        ready=server.ready,
        ready_timeout_s=30,
        tries=2,  # NOTE: prepare() sets aside what the first try could not read
        grace_s=_VALKEY_GRACE_S,
        hint=f"its last words are in {server.log_file}",
    )


def _worker(settings: Settings, env: Mapping[str, str], number: int, gpus: Sequence[str]) -> Child:
    own = {"DIFFBOX_WORKER_ID": f"{socket.gethostname()}-{number + 1}"}
    if len(gpus) > 1:
        own["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    drain_s = Env(env).seconds("DIFFBOX_DRAIN_S", 5.0)  # NOTE: as handler/config.py reads it
    return Child(
        name=f"worker-{number + 1}",
        argv=[settings.python_path, "-m", "handler.pod"],
        env={**env, **own},
        rank=1,
        grace_s=drain_s + settings.grace_s + _WORKER_MARGIN_S,
        hint=f"DIFFBOX_PYTHON_PATH={settings.python_path}",
    )


def _ui(settings: Settings, env: Mapping[str, str]) -> Child:
    return Child(
        name="page",
        argv=[sys.executable, "-m", "controlplane.main"],
        env=env,
        rank=2,
        ready=lambda: answers(settings),
        grace_s=_UI_GRACE_S,
        hint=f"DIFFBOX_HOST={settings.host} DIFFBOX_PORT={settings.port}",
    )


# --- addresses -----------------------------------------------------------------------------------


def local_host(settings: Settings) -> str:
    """The host under which programs on this computer reach the page."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)


def address(settings: Settings) -> str:
    """The page's address for a browser."""
    if settings.pod_id:
        return f"https://{settings.pod_id.lower()}-{settings.port}.proxy.runpod.net"
    host = local_host(settings)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


async def answers(settings: Settings) -> bool:
    """Whether the page speaks HTTP; a 401 is an answer as well."""
    request = f"GET /api/health HTTP/1.1\r\nHost: localhost:{settings.port}\r\nConnection: close"
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(local_host(settings), settings.port)
            try:
                writer.write(f"{request}\r\n\r\n".encode())
                status = await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return status.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4"))


# --- what can be wrong ---------------------------------------------------------------------------


def unwritable(folder: Path) -> str:
    """Why no file can be made in a folder, which is made if need be; "" when one can."""
    probe = folder / f".diffbox-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        return f"no file can be written there: {os.strerror(error.errno or 0)}"
    return ""


def free_port(name: str, host: str, port: int) -> int:
    """The port itself, or a free one for 0.

    Raises:
        ConfigError: the port is taken, needs rights that we lack, or the host is not ours.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except socket.gaierror as error:
        raise ConfigError(f"DIFFBOX_HOST={host!r} is not a known host: {error.strerror}") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno == errno.EADDRINUSE:
            reason = "another program listens there; stop it, or take another port"
        raise ConfigError(f"{name}={port}: {host}:{port} can't be used: {reason}") from error


def worker_packages(engine: str) -> tuple[str, ...]:
    """What a worker's interpreter must be able to import for an engine."""
    return WORKER_PACKAGES + (ENGINE_PACKAGES if engine == OWN_ENGINE else ())


def missing_packages(python: str, packages: Sequence[str]) -> list[str]:
    """Which packages an interpreter can't find; looks only, so that torch is not loaded.

    Raises:
        ConfigError: it is no Python interpreter.
    """
    script = (
        "import importlib.util as u, sys; print(*[p for p in sys.argv[1:] if not u.find_spec(p)])"
    )
    try:
        found = subprocess.run(
            [python, "-c", script, *packages],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"DIFFBOX_PYTHON_PATH={python} can't be run: {error}") from error
    return found.stdout.split()


def lacking(python: str, packages: Sequence[str], extra: str, variable: str = "") -> str:
    """The message for missing packages, with the command that installs them."""
    name = f"{variable}={python}" if variable else python
    listed = ", ".join(packages)
    return f"{name} lacks {listed}; install with: {python} -m pip install 'diffbox[{extra}]'"


def find_gpus(environ: Mapping[str, str]) -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, one a GPU; empty when there is none to see."""
    if "CUDA_VISIBLE_DEVICES" in environ:
        return [gpu for item in environ["CUDA_VISIBLE_DEVICES"].split(",") if (gpu := item.strip())]
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if not program:
        return []
    argv = [program, "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        found = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return found.stdout.split()
