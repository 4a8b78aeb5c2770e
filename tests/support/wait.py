"""Waiting for a condition with a deadline: what tests use in place of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.02


def wait_until(predicate: Callable[[], T], timeout_s: float = 10) -> T:
    """Poll until the predicate is true; gives what it returned. Fails the test when it is late."""
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {predicate}"
        time.sleep(_POLL_S)
    return value


async def wait_until_async(
    predicate: Callable[[], T] | Callable[[], Awaitable[T]], timeout_s: float = 10
) -> T:
    """The same on an event loop; the predicate may be a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {predicate}"
        await asyncio.sleep(_POLL_S)
