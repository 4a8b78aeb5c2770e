"""Chromium on the real control plane.

The asynchronous Playwright, on one event loop for all of these tests: the synchronous one leaves a
running loop behind, which asynchronous tests after it can't live with.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.e2e.page_process import WITHOUT_TORCH, PageProcess

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
READY = "window.did_handshake === true"
_DESK = {"width": 1440, "height": 900}
TIMEOUT_MS = 20_000


class OpenPage(Protocol):
    """Opens a page; closing it fails the test when the browser's console has errors."""

    def __call__(
        self, url: str, *, quiet: bool = True, **context: Any
    ) -> AbstractAsyncContextManager[Page]:
        """`quiet`: no errors are expected; `context`: Playwright's options of a new context."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder is marked and shares the event loop of the browser."""
    for item in items:
        if "tests/e2e" in item.path.as_posix():
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests."""
    expect.set_options(timeout=TIMEOUT_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGS)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def open_page(browser: Browser) -> OpenPage:
    """A new page in a context of its own."""

    @asynccontextmanager
    async def opened(url: str, *, quiet: bool = True, **context: Any) -> AsyncIterator[Page]:
        async with await browser.new_context(**{"viewport": _DESK, **context}) as fresh:
            page = await fresh.new_page()
            page.set_default_timeout(TIMEOUT_MS)
            errors = watch(page)
            await page.goto(url)
            await page.wait_for_function(f"{READY} || location.pathname === '/login'")
            yield page
            assert not (quiet and errors), errors

    return opened


def watch(page: Page) -> list[str]:
    """Collects the errors of the page's console and scripts, and failed answers."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type in {"error", "warning"} else None)
    return errors


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """A control plane whose engine needs no torch, shared by all tests that don't stop it."""
    yield from _running(tmp_path_factory, WITHOUT_TORCH)


@pytest.fixture
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """The same for one test, which may stop it."""
    yield from _running(tmp_path_factory, WITHOUT_TORCH)


@pytest.fixture(scope="session")
def demo_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """A control plane with the real engine on the demo model."""
    yield from _running(tmp_path_factory, {})


@pytest.fixture
def locked_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """One that asks for a password."""
    yield from _running(tmp_path_factory, {**WITHOUT_TORCH, "DIFFBOX_PASSWORD": "open-sesame"})


def _running(factory: pytest.TempPathFactory, env: dict[str, str]) -> Iterator[PageProcess]:
    running = PageProcess(factory.mktemp("stack"), env)
    running.start()
    yield running
    running.stop()
