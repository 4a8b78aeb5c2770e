"""Settings of the control plane, read once from the environment.

A bad value stops the start with the variable's name.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

from core.config import CoreConfig, Env, core_fields
from core.errors import ConfigError

BackendName = Literal["valkey", "memory"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings(CoreConfig):
    """What the control plane was told; defaults suit one person on one computer."""

    host: str = "127.0.0.1"
    """DIFFBOX_HOST: address to listen on. Any but a loopback one needs a password."""
    port: int = 8080
    """DIFFBOX_PORT: TCP port; 0 takes a free one."""
    password: str = field(default="", repr=False)
    """DIFFBOX_PASSWORD: opens the page, and is the API's bearer token; "" is open to loopback."""
    public_hosts: tuple[str, ...] = ()
    """DIFFBOX_PUBLIC_HOSTS (by commas): names under which browsers may reach us through a proxy,
    besides localhost and the bound address. On a RunPod pod its proxy's name is added."""
    pod_id: str = ""
    """RUNPOD_POD_ID: set on a RunPod pod, which is public, so a password is needed."""
    backend: BackendName = "valkey"
    """DIFFBOX_BACKEND: where jobs run: workers on a Valkey queue, or a child of this process."""
    valkey_url: str = field(default="", repr=False)
    """DIFFBOX_VALKEY_URL: redis://, rediss:// or unix:// address; "" is the embedded server."""
    valkey_port: int | None = None
    """DIFFBOX_VALKEY_PORT: loopback TCP port of the embedded server; None is a unix socket."""
    worker_count: int = 1
    """DIFFBOX_WORKER_COUNT: how many workers `diffbox up` starts, one a GPU."""
    python_path: str = sys.executable
    """DIFFBOX_PYTHON_PATH: interpreter of the processes that run jobs, or its environment."""
    engine: str = "handler.compose:build_engine"
    """DIFFBOX_ENGINE: "package.module:function" that builds the engine in its own process."""
    lease_s: float = 30.0
    """DIFFBOX_LEASE_S: a job whose worker was silent for so long is given to another one."""
    grace_s: float = 10.0
    """DIFFBOX_GRACE_S: how long a cancelled job may take to end before its process is killed."""
    stall_s: float = 900.0
    """DIFFBOX_STALL_S: a job that tells nothing for so long hangs, and its process is killed."""
    max_crashes: int = 3
    """DIFFBOX_MAX_CRASHES: a job that has cost so many processes is not tried again."""
    retry_delay_s: float = 5.0
    """DIFFBOX_RETRY_DELAY_S: wait before a job is run again whose error may pass."""
    lane_length: int = 1000
    """DIFFBOX_LANE_LENGTH: jobs that a lane holds, waiting and running, before it answers 429."""
    image_max_bytes: int = 64_000_000
    """DIFFBOX_IMAGE_MAX_MB (in MB): largest picture that may be uploaded."""
    video_max_bytes: int = 512_000_000
    """DIFFBOX_VIDEO_MAX_MB (in MB): largest video that may be uploaded."""

    @property
    def loopback(self) -> bool:
        """Whether only programs on this computer can connect."""
        return not self.pod_id and _is_loopback(self.host)

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Names that a request's Host header may have, lower case, without the port."""
        return frozenset({"localhost", "127.0.0.1", "::1", self.host.lower(), *self.public_hosts})

    def is_known_host(self, name: str) -> bool:
        """Whether we may be reached under this name (lower case, no port, no brackets).

        A page that listens on all addresses is reached under each of them. That is safe: a page
        of somebody else can be made to resolve to us (DNS rebinding), but not under an address.
        """
        return name in self.allowed_hosts or (
            self.host in {"0.0.0.0", "::"} and _is_address(name) and name != self.host
        )


def load_settings(env: Env | None = None) -> Settings:
    """Settings from the environment.

    Raises:
        ConfigError: a value is wrong; the message names the variable.
    """
    env = env or Env()
    port = env.integer("DIFFBOX_PORT", 8080, low=0, high=65535)
    pod_id = env.text("RUNPOD_POD_ID")
    valkey_port = env.integer("DIFFBOX_VALKEY_PORT", 0, low=0, high=65535)
    return Settings(
        **core_fields(env),
        host=_host(env),
        port=port,
        password=env.text("DIFFBOX_PASSWORD"),
        public_hosts=_public_hosts(env, pod_id, port),
        pod_id=pod_id,
        backend=_backend(env),
        valkey_url=_valkey_url(env),
        valkey_port=valkey_port or None,
        worker_count=env.integer("DIFFBOX_WORKER_COUNT", 1, low=0, high=64),
        python_path=_python(env),
        engine=_engine(env),
        lease_s=env.seconds("DIFFBOX_LEASE_S", 30.0, low=3.0),
        grace_s=env.seconds("DIFFBOX_GRACE_S", 10.0),
        stall_s=env.seconds("DIFFBOX_STALL_S", 900.0, low=10.0),
        max_crashes=env.integer("DIFFBOX_MAX_CRASHES", 3, low=1, high=100),
        retry_delay_s=env.seconds("DIFFBOX_RETRY_DELAY_S", 5.0),
        lane_length=env.integer("DIFFBOX_LANE_LENGTH", 1000, low=1, high=100_000),
        image_max_bytes=env.integer("DIFFBOX_IMAGE_MAX_MB", 64, low=1, high=10_000) * 1_000_000,
        video_max_bytes=env.integer("DIFFBOX_VIDEO_MAX_MB", 512, low=1, high=100_000) * 1_000_000,
    )


def _host(env: Env) -> str:
    host = env.text("DIFFBOX_HOST", "127.0.0.1")
    if "/" in host or (":" in host.strip("[]").replace("::", "") and not _is_address(host)):
        raise ConfigError(f"DIFFBOX_HOST={host!r} is not an address such as 127.0.0.1 or 0.0.0.0")
    return host.strip("[]")


def _public_hosts(env: Env, pod_id: str, port: int) -> tuple[str, ...]:
    names = [name.strip().lower() for name in env.text("DIFFBOX_PUBLIC_HOSTS").split(",")]
    for name in filter(None, names):
        if "/" in name or urlsplit(f"//{name}").hostname != name.strip("[]"):
            raise ConfigError(
                f"DIFFBOX_PUBLIC_HOSTS: {name!r} is not a host name: leave out https:// and port"
            )
    if pod_id:
        names.append(f"{pod_id.lower()}-{port}.proxy.runpod.net")
    return tuple(dict.fromkeys(name.strip("[]") for name in names if name))


def _backend(env: Env) -> BackendName:
    chosen = env.choice("DIFFBOX_BACKEND", "valkey", ("valkey", "memory", "runpod"))
    if chosen == "runpod":
        raise ConfigError(
            "DIFFBOX_BACKEND='runpod': this version can't send jobs to RunPod; use valkey or memory"
        )
    return cast("BackendName", chosen)


def _valkey_url(env: Env) -> str:
    url = env.text("DIFFBOX_VALKEY_URL")
    parts = urlsplit(url)
    if url and (parts.scheme not in {"redis", "rediss", "unix"} or not (parts.netloc + parts.path)):
        # The URL may hold a password, so only its scheme is shown.
        raise ConfigError(
            f"DIFFBOX_VALKEY_URL begins with {parts.scheme + ':' if parts.scheme else 'no scheme'};"
            " use redis://host:port, rediss://host:port or unix:///path/valkey.sock"
        )
    return url


def _python(env: Env) -> str:
    given = env.text("DIFFBOX_PYTHON_PATH", sys.executable)
    path = Path(given).expanduser()
    if path.is_dir():
        path /= "bin/python"
    elif os.sep not in given:
        return given
    if not os.access(path, os.X_OK):
        raise ConfigError(
            f"DIFFBOX_PYTHON_PATH={given!r} is neither a Python program nor a virtual environment"
        )
    return str(path)


def _engine(env: Env) -> str:
    path = env.text("DIFFBOX_ENGINE", "handler.compose:build_engine")
    module, _, name = path.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"DIFFBOX_ENGINE={path!r} is not of the form package.module:function")
    return path


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
