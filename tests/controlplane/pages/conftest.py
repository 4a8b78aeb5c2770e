"""A simulated browser on the real app: API, guard and pages in one process, without JavaScript."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from nicegui import ui
from nicegui.functions.download import download
from nicegui.functions.navigate import Navigate
from nicegui.functions.notify import notify
from nicegui.testing import User
from nicegui.testing.general import nicegui_reset_globals

from controlplane.config import load_settings
from controlplane.main import create_app
from core.config import Env
from tests.support.engine import PATH


@pytest.fixture
async def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[User]:
    """A user of a control plane with the memory backend and an engine without torch."""
    folders = {
        name: str(tmp_path / name.lower())
        for name in ("DIFFBOX_DATA_DIR", "DIFFBOX_MODELS_DIR", "DIFFBOX_OUTPUTS_DIR")
    }
    settings = load_settings(Env({**folders, "DIFFBOX_BACKEND": "memory", "DIFFBOX_ENGINE": PATH}))
    monkeypatch.setenv("NICEGUI_USER_SIMULATION", "true")
    for name, value in folders.items():
        monkeypatch.setenv(name, value)  # the engine's own process reads them
    loaded = {name: module for name, module in sys.modules.items() if name.startswith("control")}
    try:
        with nicegui_reset_globals():
            app = create_app(settings)
            async with app.router.lifespan_context(app):
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://localhost"
                ) as client:
                    yield User(client)
    finally:
        # The reset forgets the modules of page functions; other tests hold on to these.
        sys.modules.update(loaded)
        ui.navigate, ui.notify, ui.download = Navigate(), notify, download
