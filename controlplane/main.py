"""The control plane's process: page, REST API and WebSocket on one port.

python -m controlplane.main        settings: controlplane/config.py, all from the environment

Logs JSON lines to stderr; "ready", with the url, comes once it serves.
"""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import uvicorn
from fastapi import FastAPI

from controlplane.api import add_error_handlers, api_router
from controlplane.api.workflows import BODY_MAX
from controlplane.auth import Guard, Sessions, choose_password, keep_secret
from controlplane.backends.base import Backend
from controlplane.backends.memory import MemoryBackend
from controlplane.backends.valkey import ValkeyBackend
from controlplane.config import Settings, load_settings
from controlplane.events import events_router
from controlplane.jobs import Jobs
from controlplane.login import login_router
from controlplane.services import Services
from controlplane.store import JobStore
from controlplane.uploads import Uploads
from controlplane.valkey_server import ValkeyServer
from core.engine_process import EngineProcess
from core.errors import EX_CONFIG, ConfigError
from core.logs import log_json_lines
from core.lora import LoraShelf
from core.queue_keys import Rules
from core.workflows import register

log = logging.getLogger(__name__)

_UPLOAD_SLACK: Final = 1_000_000


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    log_json_lines()
    _quiet_uvicorn()
    # Uvicorn stops in order and then sends itself the signal again, to whoever had it before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        settings = load_settings()
        app = create_app(settings)
    except ConfigError as error:
        log.error(error.message)
        sys.exit(EX_CONFIG)
    _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            ws="websockets-sansio",
            ws_ping_interval=20.0,
            ws_max_size=4_000_000,
            ws_per_message_deflate=False,
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
        )
    ).run()


def _quiet_uvicorn() -> None:
    """Its start is told by our own line, and a WebSocket that the guard refuses is no error."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(
        lambda entry: "without completing handshake" not in entry.getMessage()
    )


def create_app(settings: Settings) -> FastAPI:
    """The whole application: the API, the guard, and NiceGUI's pages.

    Raises:
        ConfigError: a setting is wrong, or another process owns the data folder.
    """
    # NiceGUI costs half a second and is one per process: only who wants pages imports it.
    from controlplane.pages import register_pages  # noqa: PLC0415

    services = create_services(settings)
    app = create_api(services)
    register_pages(app, services)
    return app


def create_api(services: Services) -> FastAPI:
    """The application without pages: REST, WebSocket, sign-in, guard."""
    settings = services.settings
    key, _ = keep_secret(settings.data_dir / "auth" / "session.key", lambda: secrets.token_hex(32))
    sessions = Sessions(password=settings.password, key=key)
    app = FastAPI(
        title="diffbox",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        openapi_url="/openapi.json",
    )
    app.state.services = services
    add_error_handlers(app)
    app.include_router(api_router(services))
    app.include_router(events_router(services.jobs))
    app.include_router(login_router(sessions))
    app.add_middleware(
        Guard,
        settings=settings,
        sessions=sessions,
        body_limits=(
            ("/api/uploads", services.uploads.max_bytes + _UPLOAD_SLACK),
            ("/api/workflows/", BODY_MAX),
            ("/api/jobs/", BODY_MAX),
        ),
    )
    return app


def create_services(settings: Settings) -> Services:
    """The parts of the control plane; nothing runs yet. A password is chosen where one is needed.

    Raises:
        ConfigError: a workflow can't be imported, or another process owns the data folder.
    """
    password, made_now = choose_password(settings)
    if made_now:
        sys.stdout.write(f"The password of this diffbox is: {password}\n")
        sys.stdout.flush()
    settings = replace(settings, password=password)
    for path in settings.workflows:
        register(path)
    backend = _backend(settings)
    uploads = Uploads(
        settings.uploads_dir,
        image_max_bytes=settings.image_max_bytes,
        video_max_bytes=settings.video_max_bytes,
    )
    store = JobStore(settings.data_dir / "jobs.json")
    jobs = Jobs(
        backend=backend,
        store=store,
        uploads=uploads,
        loras=LoraShelf(settings),
        retry_s=settings.lease_s / 3,
    )
    return Services(settings=settings, jobs=jobs, uploads=uploads, backend=backend)


def _backend(settings: Settings) -> Backend:
    rules = Rules(
        lease_s=settings.lease_s,
        max_crashes=settings.max_crashes,
        retry_delay_s=settings.retry_delay_s,
        lane_limit=settings.lane_length,
    )
    if settings.backend == "memory":
        process = EngineProcess(
            settings.engine,
            python=settings.python_path,
            grace_s=settings.grace_s,
            stall_s=settings.stall_s,
        )
        return MemoryBackend(process, rules)
    embedded = ValkeyServer(settings.data_dir, port=settings.valkey_port)
    return ValkeyBackend(settings.valkey_url or embedded.url, rules)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    await services.jobs.start()
    yield
    await services.jobs.close()


class _Server(uvicorn.Server):
    """Uvicorn that says when it serves, and where."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind, then log the one line that others wait for."""
        await super().startup(sockets)
        if self.started:
            bound = self.servers[0].sockets[0].getsockname()
            host = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            log.info("ready", extra={"url": f"http://{host}:{bound[1]}"})


if __name__ == "__main__":
    main()
