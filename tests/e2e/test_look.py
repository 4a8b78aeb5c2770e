"""Jobs, gallery, shell, phone and accessibility in Chromium."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.e2e.conftest import READY, OpenPage
from tests.e2e.page_process import PageProcess
from tests.e2e.screen import expect_running, stage, start_sleeper

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
ELEMENTS_MAX = 300
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}
_RULES = "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})"


async def violations(page: Page) -> list[str]:
    """What axe finds wrong on the page, as it is now."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate(_RULES)
    return [f"{v['id']}: {v['nodes'][0]['html'][:160]}" for v in found["violations"]]


async def finished_job(page: Page, stack: PageProcess, prompt: str) -> str:
    """Make a video without a model; gives the job's id."""
    await page.goto(f"{stack.url}/create/sleeper")
    await page.wait_for_function(READY)
    job_id = await start_sleeper(page, prompt, seconds=0.1, steps=2)
    await expect(stage(page).locator("video")).to_be_visible()
    return job_id


async def test_a_job_has_a_page_with_stages_parameters_and_files(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(stack.url) as page:
        job_id = await finished_job(page, stack, "a page of its own")
        await stage(page).get_by_role("link", name="Details").click()
        await expect(page).to_have_url(f"{stack.url}/jobs/{job_id}")
        await expect(page.get_by_role("heading", level=1)).to_have_text("a page of its own")
        stages = page.get_by_role("region", name="Stages")
        await expect(stages.get_by_role("listitem").filter(has_text="Denoising")).to_have_text(
            re.compile(r"Denoising\d+\.\d+ s")
        )
        await expect(page.get_by_role("region", name="Parameters")).to_contain_text("Seed")
        await expect(page.get_by_role("region", name="Files")).to_contain_text(".mp4")
        await page.get_by_role("button", name="Use these settings").click()
        await expect(page.get_by_label("Prompt", exact=True)).to_have_value("a page of its own")


async def test_an_unknown_job_says_so(stack: PageProcess, open_page: OpenPage) -> None:
    async with open_page(f"{stack.url}/jobs/nobody", quiet=False) as page:
        await expect(page.get_by_role("heading", name="No such job")).to_be_visible()


async def test_jobs_can_be_filtered_by_status(stack: PageProcess, open_page: OpenPage) -> None:
    async with open_page(stack.url) as page:
        await finished_job(page, stack, "to be found")
        await page.get_by_role("link", name="Jobs", exact=False).first.click()
        await expect(page.get_by_role("link", name="to be found").first).to_be_visible()
        await page.get_by_role("radio", name="Done").check()
        await expect(page.get_by_role("link", name="to be found").first).to_be_visible()
        await page.get_by_role("radio", name="Queued").check()
        await expect(page.get_by_role("heading", name="No job is queued")).to_be_visible()


async def test_the_gallery_plays_under_the_pointer_and_large_on_a_click(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(stack.url) as page:
        await finished_job(page, stack, "older picture")
        await finished_job(page, stack, "newer picture")
        await page.get_by_role("link", name="Gallery").click()
        tile = page.get_by_role("button", name="Open newer picture").first
        await tile.hover()
        await expect(tile.locator("video")).to_be_visible()
        await tile.click()
        large = page.get_by_role("dialog")
        await expect(large.locator("video")).to_be_visible()
        await page.keyboard.press("ArrowRight")
        await expect(large.get_by_role("heading")).to_have_text("older picture")
        await page.keyboard.press("Escape")
        await expect(large).to_have_count(0)


async def test_the_theme_is_kept_over_a_reload(stack: PageProcess, open_page: OpenPage) -> None:
    async with open_page(stack.url, color_scheme="light") as page:
        await page.get_by_role("button", name="System theme").click()
        await page.reload()
        await page.wait_for_function(READY)

        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == "rgb(10, 10, 13)"


async def test_on_a_phone_the_result_stands_above_the_form_and_generate_stays_in_reach(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/sleeper", **PHONE) as page:
        await expect(stage(page)).to_be_hidden()
        await expect(page.get_by_role("button", name="Generate")).to_be_in_viewport()
        await start_sleeper(page, "on a phone", seconds=30)
        await expect_running(page)
        await expect(stage(page)).to_be_in_viewport()
        await expect(page.get_by_role("button", name="Generate")).to_be_in_viewport()
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width == 390
        await stage(page).get_by_role("button", name="Cancel").click()
        await expect(stage(page).get_by_role("heading", name="Cancelled")).to_be_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
async def test_every_page_is_accessible_and_small(
    stack: PageProcess, open_page: OpenPage, scheme: str, options: dict[str, Any]
) -> None:
    async with open_page(stack.url, color_scheme=scheme, **options) as page:
        job_id = await finished_job(page, stack, "for all eyes")
        found = await violations(page)
        for path in ("/", "/jobs", f"/jobs/{job_id}", "/gallery"):
            await page.goto(stack.url + path)
            await page.wait_for_function(READY)
            if path == "/":
                await page.get_by_role("radio", name="Expert").check()
                await page.get_by_role("button", name="Generate").click()
            await page.wait_for_load_state("networkidle")
            found += [f"{path} {violation}" for violation in await violations(page)]
            count = await page.evaluate("Object.keys(mounted_app.elements).length")
            assert count < ELEMENTS_MAX
        assert not found


async def test_with_a_password_one_signs_in_and_out(
    locked_stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{locked_stack.url}/login") as page:
        await page.get_by_label("Password").fill("open-sesame")
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_function(READY)
        await expect(page.get_by_text("Worker ready")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Password")).to_be_visible()


async def test_the_longest_form_scrolls_in_its_pane_and_not_the_window(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/i2v") as page:
        await page.get_by_role("radio", name="Expert").check()
        await expect(page.get_by_label("Expert boundary").first).to_be_attached()
        hidden = "document.documentElement.scrollHeight - window.innerHeight"
        assert await page.evaluate(hidden) <= 0
