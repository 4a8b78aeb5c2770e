"""Fields of the form that hold lists: prompts, pictures, LoRAs; and what a preset changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import Page, expect

from tests.e2e.conftest import OpenPage
from tests.e2e.page_process import PageProcess
from tests.e2e.screen import PHOTO, ROTATED, drop, field, generate, stage, write
from tests.e2e.test_look import PHONE, violations

DEMO_MS = 240_000
"""The demo model on a busy computer without a GPU."""

_PASTE = """(area, text) => {
  const data = new DataTransfer();
  data.setData("text", text);
  const options = { clipboardData: data, bubbles: true, cancelable: true };
  const event = new ClipboardEvent("paste", options);
  if (area.dispatchEvent(event)) document.execCommand("insertText", false, text);
}"""


async def texts(page: Page) -> list[str]:
    """What is written in the prompts, in their order."""
    areas = field(page, "prompts").locator("textarea")
    written: list[str] = await areas.evaluate_all("areas => areas.map((area) => area.value)")
    return written


async def test_prompts_are_written_moved_and_removed_by_keyboard(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/svi") as page:
        clip = page.get_by_role("textbox", name="Clip 1")
        await clip.fill("first")
        await clip.press("Enter")
        await page.keyboard.type("second")
        await expect(page.get_by_role("textbox", name="Clip 2")).to_be_focused()
        await page.keyboard.press("Alt+ArrowUp")
        assert await texts(page) == ["second", "first"]
        await expect(clip).to_be_focused()
        await expect(field(page, "prompts")).to_contain_text("Clips 3 to 10 go on")
        await page.get_by_role("button", name="Double clip 1").click()
        await page.get_by_role("button", name="Remove clip 3").click()
        assert await texts(page) == ["second", "second"]
        await write(page, "num_clips", "1")
        await field(page, "prompts").get_by_role("button", name="Make 2").click()
        await expect(page.get_by_role("spinbutton", name="Clips")).to_have_value("2")


async def test_pasted_lines_become_prompts_when_one_says_so(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/svi") as page:
        clip = page.get_by_role("textbox", name="Clip 1")
        await clip.focus()
        await clip.evaluate(_PASTE, "a\n\nb\nc")
        await page.get_by_role("button", name="One clip a line").click()

        assert await texts(page) == ["a", "b", "c"]


async def test_a_blank_prompt_is_told_beside_it_and_only_after_generate(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/svi") as page:
        await drop(page, "input_image", PHOTO, "image/jpeg")
        await expect(field(page, "input_image")).to_contain_text("960 × 640")
        await page.get_by_role("textbox", name="Clip 1").fill("first")
        await page.get_by_role("button", name="Add a clip").click()
        await expect(page.get_by_role("textbox", name="Clip 2")).to_be_focused()
        await expect(page.locator(".problem")).to_have_count(0)
        await page.keyboard.press("Control+Enter")

        await expect(field(page, "prompts").locator(".text-row").get_by_role("alert")).to_have_text(
            "Say what happens in this clip, or remove it."
        )
        await expect(page.locator(".problem")).to_have_count(1)
        await expect(page.get_by_role("textbox", name="Clip 2")).to_have_attribute(
            "aria-invalid", "true"
        )


async def test_a_preset_changes_what_was_not_touched(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/i2v") as page:
        await page.get_by_role("radio", name="Advanced").check()
        steps = page.get_by_role("spinbutton", name="Steps")
        await expect(steps).to_have_value("8")
        await page.get_by_label("Preset", exact=True).select_option("i2v-demo-lightning")

        await expect(steps).to_have_value("4")
        await expect(page.get_by_label("LoRA 1, low", exact=True)).to_have_value(
            "wan-demo-lightning"
        )


async def test_a_known_lora_fills_both_experts_and_an_empty_row_is_nothing(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{stack.url}/create/i2v") as page:
        await page.get_by_role("button", name="Add a LoRA").click()
        high = page.get_by_label("LoRA 1, high", exact=True)
        await expect(high).to_be_focused()
        await high.fill("wan-demo-style")
        await high.press("Tab")
        await expect(page.get_by_label("LoRA 1, low", exact=True)).to_have_value("wan-demo-style")
        await page.get_by_label("LoRA 1, high strength, exact").fill("9")
        await expect(field(page, "lora").get_by_role("alert")).to_contain_text(
            "Number 1, high strength"
        )
        await page.get_by_role("button", name="Add a LoRA").click()
        await page.get_by_role("button", name="Remove LoRA 1").click()
        await expect(field(page, "lora").get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
async def test_lists_are_accessible(
    stack: PageProcess, open_page: OpenPage, options: dict[str, Any]
) -> None:
    async with open_page(f"{stack.url}/create/qwen", **options) as page:
        pictures = field(page, "edit_images").locator("input[type=file]").last
        await pictures.set_input_files([PHOTO, ROTATED])
        await expect(field(page, "edit_images")).to_contain_text("720 × 480")
        await page.get_by_role("radio", name="Inpaint").check()
        await page.get_by_role("button", name="Add a LoRA").click()
        await expect(field(page, "inpaint_mask")).to_be_visible()
        found = await violations(page)
        await page.goto(f"{stack.url}/create/svi")
        await page.get_by_role("textbox", name="Clip 1").fill("first")
        await page.get_by_role("button", name="Add a clip").click()
        found += await violations(page)
        assert not found
        width = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_two_pictures_and_a_mask_become_one_that_is_compared_with_the_first(
    demo_stack: PageProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    mask = tmp_path / "mask.png"
    image = Image.new("L", (720, 480))
    image.paste(255, (200, 100, 500, 400))
    image.save(mask)
    async with open_page(f"{demo_stack.url}/create/qwen") as page:
        pictures = field(page, "edit_images")
        await pictures.locator("input[type=file]").set_input_files([PHOTO, ROTATED])
        await expect(pictures.locator(".picture")).to_contain_text(["960 × 640", "720 × 480"])
        await page.get_by_role("button", name="Move picture 2 up").click()
        await expect(pictures.locator(".picture")).to_contain_text(["720 × 480", "960 × 640"])
        await page.get_by_role("radio", name="Inpaint").check()
        await field(page, "inpaint_mask").locator("input[type=file]").set_input_files(mask)
        await expect(page.get_by_alt_text("The picture, with what is made anew")).to_be_visible()
        await write(page, "prompt", "A red boat")
        await page.get_by_role("radio", name="Advanced").check()
        await write(page, "num_inference_steps", "2")
        job_id = await generate(page)
        await stage(page).get_by_role("button", name="Compare").click(timeout=DEMO_MS)
        before = await page.get_by_alt_text("The same before").get_attribute("src")
        job = await (await page.request.get(f"{demo_stack.url}/api/jobs/{job_id}")).json()
        first, second = job["params"]["edit_images"]
        assert before and before.endswith(first.removeprefix("upload:"))
        assert first != second
        handle = page.get_by_role("slider", name="Before and after")
        await handle.focus()
        await page.keyboard.press("Home")
        await expect(handle).to_have_attribute("aria-valuetext", "0% before")
        link = stage(page).get_by_role("link", name="Download")
        assert str(await link.get_attribute("download")).endswith(".png")
