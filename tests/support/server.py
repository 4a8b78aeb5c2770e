"""A control plane without pages, served over real HTTP by a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.sync.client import ClientConnection, connect

from controlplane.config import load_settings
from controlplane.main import create_api, create_services
from controlplane.services import Services
from core.config import Env
from tests.support import engine
from tests.support.backends import own_env
from tests.support.wait import wait_until


@dataclass
class Served:
    """A served application and its address."""

    url: str
    services: Services
    http: httpx.Client

    def ws(self, **options: Any) -> ClientConnection:
        """A connection to /ws."""
        address = self.url.replace("http", "ws") + "/ws"
        made: ClientConnection = connect(address, max_size=None, **options)
        return made

    def submit(self, workflow: str, **params: Any) -> str:
        """Put a job in; gives its id."""
        answer = self.http.post(f"/api/workflows/{workflow}", json=params)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The job's record."""
        found: dict[str, Any] = self.http.get(f"/api/jobs/{job_id}").json()
        return found

    def until(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """The job's record once it has one of the statuses."""
        wait_until(lambda: self.job(job_id)["status"] in statuses, 30)
        return self.job(job_id)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free port; gives its address."""
    config = uvicorn.Config(
        app, port=0, ws="websockets-sansio", log_config=None, access_log=False, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def serving_api(folder: Path, **env: str) -> Iterator[Served]:
    """A control plane with the fake workflows; jobs run in a child unless `env` says otherwise."""
    values = {
        **own_env(folder),
        "DIFFBOX_BACKEND": "memory",
        "DIFFBOX_ENGINE": engine.PATH,
        "DIFFBOX_GRACE_S": "0.7",
        "DIFFBOX_RETRY_DELAY_S": "0.1",
        **env,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():  # for the engine's process, which inherits them
            patch.setenv(name, value)
        services = create_services(load_settings(Env(values)))
        with serving(create_api(services)) as url, httpx.Client(base_url=url, timeout=20) as http:
            yield Served(url, services, http)
