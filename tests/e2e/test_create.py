"""The create page in Chromium: a photo and a prompt become a video, and all that goes wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import READY, OpenPage
from tests.e2e.page_process import PageProcess
from tests.e2e.screen import (
    PHOTO,
    ROTATED,
    drop,
    expect_running,
    field,
    generate,
    paste,
    stage,
    start_sleeper,
    write,
)

DEMO_MS = 240_000
"""The demo model on a busy computer without a GPU."""


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_photo_and_a_prompt_become_a_video_that_plays(
    demo_stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(demo_stack.url) as page:
        await expect(page.get_by_text("Demo model: random weights")).to_be_visible()
        await drop(page, "input_image", PHOTO, "image/jpeg")
        await expect(field(page, "input_image")).to_contain_text("960 × 640")
        await write(page, "prompt", "The sun sets behind the mountains")
        await page.get_by_label("Resolution", exact=True).select_option("144x256")
        await page.get_by_role("radio", name="Advanced").check()
        await write(page, "num_frames", "9")
        await generate(page)
        preview = page.get_by_alt_text("Preview of the running job")
        await expect(preview).to_be_visible(timeout=DEMO_MS)
        await expect(page).to_have_title(re.compile(r"^\d+% · Create · diffbox$"))
        video = stage(page).locator("video")
        await expect(video).to_be_visible(timeout=DEMO_MS)
        await page.wait_for_function("document.querySelector('video').currentTime > 0.1")
        size = await video.evaluate("v => [v.videoWidth, v.videoHeight, v.muted, v.loop]")
        assert size == [256, 144, True, True]
        async with page.expect_download() as started:
            await page.get_by_role("link", name="Download").click()
        saved = Path(await (await started.value).path())
        assert saved.read_bytes()[4:8] == b"ftyp"
        await expect(page).to_have_title("Create · diffbox")


async def test_a_rotated_photo_is_measured_upright(stack: PageProcess, open_page: OpenPage) -> None:
    async with open_page(stack.url) as page:
        chooser = field(page, "input_image").locator("input[type=file]")
        await chooser.set_input_files(ROTATED)

        await expect(field(page, "input_image")).to_contain_text("720 × 480")


async def test_a_file_that_is_no_image_is_refused_at_the_drop_zone(
    stack: PageProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    text, broken = tmp_path / "notes.txt", tmp_path / "broken.jpg"
    text.write_text("no picture")
    broken.write_bytes(PHOTO.read_bytes()[:2000])
    async with open_page(stack.url, quiet=False) as page:
        await drop(page, "input_image", text, "text/plain")
        await expect(field(page, "input_image").get_by_role("alert")).to_contain_text(
            "notes.txt is not an image"
        )
        await drop(page, "input_image", broken, "image/jpeg")
        await expect(field(page, "input_image").get_by_role("alert")).to_contain_text("damaged")


async def test_a_pasted_picture_becomes_the_start_image(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(stack.url) as page:
        await paste(page, PHOTO, "image/jpeg")

        await expect(field(page, "input_image")).to_contain_text("960 × 640")


async def test_a_removed_file_leaves_the_drop_zone_empty(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(stack.url) as page:
        await drop(page, "input_image", PHOTO, "image/jpeg")
        await page.get_by_role("button", name="Remove the file").click()

        await expect(field(page, "input_image").get_by_text("browse")).to_be_visible()


async def test_empty_required_fields_are_told_only_after_generate(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(stack.url) as page:
        await expect(page.locator(".problem")).to_have_count(0)
        await page.keyboard.press("Control+Enter")

        await expect(field(page, "prompt").get_by_role("alert")).to_contain_text("Fill this in")
        await expect(field(page, "input_image").get_by_role("alert")).to_contain_text(
            "Choose a file"
        )
        await expect(page.get_by_label("Prompt", exact=True)).to_be_focused()


async def test_a_wrong_value_offers_the_nearest_right_one(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(stack.url) as page:
        await page.get_by_role("radio", name="Advanced").check()
        await write(page, "num_frames", "80")
        await field(page, "num_frames").get_by_role("button", name="77").click()

        await expect(page.get_by_role("spinbutton", name="Frames")).to_have_value("77")
        await expect(field(page, "num_frames").get_by_role("alert")).to_have_count(0)


async def test_fields_show_when_they_count(stack: PageProcess, open_page: OpenPage) -> None:
    async with open_page(stack.url) as page:
        await expect(field(page, "width")).to_have_count(0)
        await page.get_by_label("Resolution", exact=True).select_option("custom")
        await expect(field(page, "width")).to_be_visible()
        await expect(field(page, "tile_size")).to_have_count(0)
        await page.get_by_role("radio", name="Expert").check()
        await page.get_by_role("switch", name="Tiled VAE").click()
        await expect(field(page, "tile_size")).to_be_visible()


async def test_a_running_job_is_there_after_a_reload_and_in_a_second_tab(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/sleeper") as page:
        job_id = await start_sleeper(page, "survives a reload", seconds=30)
        await expect_running(page)
        await page.reload()
        await page.wait_for_function(READY)
        await expect_running(page)
        await expect(page.get_by_label("Prompt", exact=True)).to_have_value("survives a reload")
        async with open_page(stack.url) as second:
            await expect(stage(second)).to_contain_text("survives a reload")
            await expect_running(second)
            assert second.url.endswith(job_id)
            await stage(second).get_by_role("button", name="Cancel").click()
            await expect(stage(second).get_by_role("heading", name="Cancelled")).to_be_visible()
        await expect(stage(page).get_by_role("heading", name="Cancelled")).to_be_visible()


async def test_a_waiting_job_says_how_many_are_before_it_and_can_be_cancelled(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/sleeper") as page:
        await start_sleeper(page, "first", seconds=30)
        await start_sleeper(page, "second", seconds=1)
        await expect(stage(page)).to_contain_text("One job is before it.")
        await page.get_by_role("button", name="Cancel second").click()
        await expect(stage(page).get_by_role("heading", name="Cancelled")).to_be_visible()
        await page.get_by_role("button", name="Cancel first").click()
        await expect(page.locator(".row-job.queued, .row-job.running")).to_have_count(0)


async def test_a_failed_job_says_why_in_words_and_gives_its_settings_back(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/raiser") as page:
        await write(page, "prompt", "out_of_memory")
        await generate(page)
        await expect(stage(page)).to_contain_text("too little memory")
        await expect(stage(page)).to_contain_text("Choose a smaller size")
        await write(page, "prompt", "something else")
        await page.get_by_role("button", name="Change settings").click()
        await expect(page.get_by_label("Prompt", exact=True)).to_have_value("out_of_memory")


async def test_a_problem_that_only_the_server_sees_stands_at_its_field(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/sleeper", quiet=False) as page:
        await page.evaluate(
            """sessionStorage.setItem("diffbox.draft.sleeper",
               JSON.stringify({values: {prompt: "x", input_image: "upload:" + "0".repeat(64)}}))"""
        )
        await page.reload()
        await page.wait_for_function(READY)
        await page.get_by_role("button", name="Generate").click()

        await expect(field(page, "input_image").get_by_role("alert")).to_be_visible()


async def test_a_restart_of_the_server_keeps_the_draft_and_the_page_comes_back(
    own_stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(own_stack.url, quiet=False) as page:
        await write(page, "prompt", "a draft that stays")
        await drop(page, "input_image", PHOTO, "image/jpeg")
        await expect(field(page, "input_image")).to_contain_text("photo.jpg")
        own_stack.stop()
        await expect(page.get_by_text("No connection. Trying again…")).to_be_visible()
        own_stack.start()
        await expect(page.get_by_text("Worker ready")).to_be_visible(timeout=60_000)
        await expect(page.get_by_label("Prompt", exact=True)).to_have_value("a draft that stays")
        await expect(field(page, "input_image")).to_contain_text("photo.jpg")


async def test_the_seed_is_random_until_it_is_kept(stack: PageProcess, open_page: OpenPage) -> None:
    async with open_page(stack.url) as page:
        seed = page.get_by_role("spinbutton", name="Seed")
        await expect(seed).to_have_value("")
        await page.get_by_role("button", name="Roll a new seed").click()
        await expect(seed).to_have_value(re.compile(r"^\d+$"))
        await page.get_by_role("button", name="Seed is kept").click()
        await expect(seed).to_have_value("")
