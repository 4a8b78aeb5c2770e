"""HlsPlayer in Chromium: a video that grows clip by clip is watched while it is made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nicegui
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from playwright.async_api import Browser, Page, expect
from starlette.staticfiles import StaticFiles

from controlplane.components import LIB
from core.media import PlaylistEntry, playlist, write_segment
from tests.e2e.conftest import TIMEOUT_MS, watch
from tests.support.pictures import moving
from tests.support.server import serving
from tests.support.wait import wait_until_async

SIZE = (96, 64)
FPS = 16
VUE = Path(nicegui.__file__).parent / "static"
HLS = "vendor/hls.light.min.mjs"

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><div id="app"></div>
<script type="importmap">
{"imports": {"vue": "/vue/vue.esm-browser.prod.js", "diffbox/": "/lib/"}}</script>
<script type="module">
  import { createApp, reactive } from "vue";
  import { HlsPlayer } from "diffbox/hls_player.js";
  window.state = reactive({ shown: !window.empty, src: "/clips.m3u8", live: true, gone: "" });
  createApp({
    components: { HlsPlayer },
    data: () => ({ state: window.state }),
    template: `<hls-player v-if="state.shown" :src="state.src" :live="state.live" label="A boat"
                           muted autoplay @gone="state.gone = $event" />`,
  }).mount("#app");
</script>"""


@dataclass
class Film:
    """A video that grows, and what was asked for over HTTP."""

    folder: Path
    url: str = ""
    entries: list[PlaylistEntry] = field(default_factory=list)
    frames: int = 0
    ended: bool = False
    broken: bool = False
    asked: list[str] = field(default_factory=list)

    def add(self, frames: int) -> None:
        """One clip more."""
        name = f"{len(self.entries)}.mp4"
        source = moving(self.frames, frames, SIZE)
        info = write_segment(
            self.folder / name, source, size=SIZE, fps=FPS, crf=20, start_frame=self.frames
        )
        self.frames += frames
        entry = PlaylistEntry(
            url=f"/clips/{name}",
            seconds=frames / FPS,
            init_bytes=info.init_bytes,
            size_bytes=(self.folder / name).stat().st_size,
        )
        self.entries.append(entry)

    @property
    def seconds(self) -> float:
        return self.frames / FPS


@pytest.fixture
def film(tmp_path: Path) -> Iterator[Film]:
    """Served, with a page that plays it; no clip yet."""
    made, app = Film(tmp_path), FastAPI()

    @app.middleware("http")
    async def note(request: Any, call_next: Any) -> Response:
        made.asked.append(request.url.path)
        if made.broken and "clips" in request.url.path:
            return Response(status_code=503)
        answer: Response = await call_next(request)
        return answer

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE)

    @app.get("/clips.m3u8")
    async def clips() -> PlainTextResponse:
        text = playlist(made.entries, ended=made.ended)
        return PlainTextResponse(text, media_type="application/vnd.apple.mpegurl")

    app.mount("/clips", StaticFiles(directory=tmp_path))
    app.mount("/lib", StaticFiles(directory=LIB))
    app.mount("/vue", StaticFiles(directory=VUE))
    with serving(app) as url:
        made.url = url
        yield made


@asynccontextmanager
async def watching(
    browser: Browser, film: Film, *, init: str = "", lost: bool = False
) -> AsyncIterator[Page]:
    """A page that plays the film. Nothing may fail in it but, if `lost`, what is loaded."""
    async with await browser.new_context() as context:
        page = await context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        errors = watch(page)
        await page.add_init_script(init)
        await page.goto(film.url)
        yield page
        assert [e for e in errors if not (lost and e.startswith("Failed to load resource"))] == []


async def until(page: Page, condition: str, arg: float = 0) -> None:
    """Wait until a condition on the video `v` and `arg` holds."""
    await page.wait_for_function(
        f"arg => {{ const v = document.querySelector('video'); return {condition}; }}", arg=arg
    )


async def buffered(page: Page) -> list[list[float]]:
    """The parts of the video that are there, in seconds."""
    ranges: list[list[float]] = await page.evaluate(
        "(({buffered: b}) => [...Array(b.length).keys()].map((i) => [b.start(i), b.end(i)]))"
        "(document.querySelector('video'))"
    )
    return ranges


async def test_it_plays_across_seams_while_clips_are_added(browser: Browser, film: Film) -> None:
    film.add(33)
    film.add(28)
    async with watching(browser, film) as page:
        await until(page, "Math.abs(v.duration - arg) < 0.01", film.seconds)
        await until(page, "v.currentTime > arg", 33 / FPS + 0.3)
        assert await buffered(page) == [[0, pytest.approx(film.seconds, abs=0.001)]]
        waiting = page.get_by_text("The next clip is being made…")
        await expect(waiting).to_be_visible()
        film.add(28)
        await until(page, "v.currentTime > arg", film.seconds - 1)
        await expect(waiting).to_be_hidden()
        film.ended = True
        await until(page, "v.ended")
        assert await buffered(page) == [[0, pytest.approx(film.seconds, abs=0.001)]]
        quality = "document.querySelector('video').getVideoPlaybackQuality()"
        assert await page.evaluate(f"{quality}.totalVideoFrames") >= film.frames - 1
        await until(page, "v.error === null && v.videoWidth === 96 && !state.gone")


async def test_it_begins_at_the_beginning_and_can_be_scrubbed(browser: Browser, film: Film) -> None:
    for _ in range(5):
        film.add(32)
    async with watching(browser, film) as page:
        await until(page, "v.played.length && v.played.start(0) < 0.1 && v.currentTime < 5")
        await page.evaluate("document.querySelector('video').currentTime = 8.5")
        await until(page, "v.currentTime > 8.6 && !v.seeking")
        await page.evaluate("document.querySelector('video').currentTime = 2.5")
        await until(page, "v.currentTime > 2.6 && v.currentTime < 5 && !v.seeking")


async def test_it_waits_for_the_first_clip(browser: Browser, film: Film) -> None:
    async with watching(browser, film) as page:
        await wait_until_async(lambda: film.asked.count("/clips.m3u8") > 1)
        film.add(32)
        await until(page, "v.currentTime > 0.5")


async def test_it_goes_on_after_the_server_was_away(browser: Browser, film: Film) -> None:
    film.add(32)
    async with watching(browser, film, lost=True) as page:
        await until(page, "v.currentTime > 0.5")
        film.broken = True
        failed = film.asked.count("/clips.m3u8") + 4
        await wait_until_async(lambda: film.asked.count("/clips.m3u8") >= failed)
        film.broken = False
        film.add(32)
        await until(page, "v.currentTime > arg", 2.5)


def damage(clip: Path) -> bytes:
    """Make a clip that can't be decoded; gives what it was."""
    content = clip.read_bytes()
    pictures = content.index(b"mdat") + 4
    clip.write_bytes(content[:pictures] + b"\xff" * (len(content) - pictures))
    return content


async def test_a_clip_that_can_not_be_decoded_is_told(browser: Browser, film: Film) -> None:
    film.add(32)
    film.add(32)
    damage(film.folder / "1.mp4")
    async with watching(browser, film, lost=True) as page:
        await expect(page.get_by_text("The video can't be played")).to_be_visible()
        assert await page.evaluate("state.gone !== ''")
    assert film.asked.count("/clips/1.mp4") < 20


async def test_it_plays_on_after_a_clip_was_damaged_on_its_way(
    browser: Browser, film: Film
) -> None:
    film.add(32)
    film.add(32)
    film.ended = True
    whole = damage(film.folder / "1.mp4")
    async with watching(browser, film, lost=True) as page:
        await wait_until_async(lambda: film.asked.count("/clips/1.mp4") > 1)
        (film.folder / "1.mp4").write_bytes(whole)
        await until(page, "v.ended && v.error === null")


async def test_hls_js_is_loaded_only_where_something_is_played(
    browser: Browser, film: Film
) -> None:
    film.add(32)
    async with watching(browser, film, init="window.empty = true") as page:
        await page.wait_for_function("state.shown === false")
        assert f"/lib/{HLS}" not in film.asked
        await page.evaluate("state.shown = true")
        await until(page, "v.currentTime > 0.1")
    assert film.asked.count(f"/lib/{HLS}") == 1


async def test_nothing_is_asked_for_after_it_is_gone(browser: Browser, film: Film) -> None:
    film.add(32)
    async with watching(browser, film) as page:
        await until(page, "v.currentTime > 0.1")
        await page.evaluate("window.video = document.querySelector('video'); state.shown = false")
        await page.wait_for_function("!video.isConnected && !video.getAttribute('src')")
        assert await page.evaluate("video.buffered.length") == 0


async def test_another_address_is_played_from_its_beginning(browser: Browser, film: Film) -> None:
    film.add(32)
    async with watching(browser, film) as page:
        await until(page, "v.currentTime > 1")
        await page.evaluate("state.src = '/clips.m3u8?again'")
        await until(page, "v.currentTime > 0.1 && v.currentTime < 1")


async def test_without_media_source_the_browser_plays_it_itself(
    browser: Browser, film: Film
) -> None:
    film.add(33)
    film.add(28)
    film.ended = True
    async with watching(browser, film, init="delete window.MediaSource") as page:
        await until(page, "v.ended && Math.abs(v.duration - arg) < 0.1", film.seconds)
    assert f"/lib/{HLS}" not in film.asked
