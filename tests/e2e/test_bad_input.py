"""Where the form says what is wrong: at the field, before anything is sent where it can."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import OpenPage
from tests.e2e.page_process import PageProcess
from tests.e2e.screen import field, write
from tests.support.pictures import BAD, encoded, gradient

FILES = {
    "animated": "animated",
    "bomb of 13000": "megapixels",
    "empty": "the file is empty",
    "truncated": "damaged",
}


async def test_what_is_wrong_with_a_file_stands_at_its_drop_zone(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(stack.url, quiet=False) as page:
        place = field(page, "input_image")
        chooser = place.locator("input[type=file]")
        for name, words in FILES.items():
            content = BAD[name][0]()
            await chooser.set_input_files(
                {"name": "photo.png", "mimeType": "image/png", "buffer": content}
            )
            await expect(place.get_by_role("alert")).to_contain_text(words)
        await expect(page.get_by_role("alert")).to_have_count(1)


async def test_a_file_of_80_mb_is_too_large_at_its_drop_zone(
    stack: PageProcess, open_page: OpenPage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The server answers before it has read it all, and the browser must still hear it."""
    large = tmp_path_factory.mktemp("large") / "large.png"
    large.write_bytes(encoded(gradient()) + bytes(80_000_000))
    async with open_page(stack.url, quiet=False) as page:
        place = field(page, "input_image")
        await place.locator("input[type=file]").set_input_files(large)
        await expect(place.get_by_role("alert")).to_contain_text("at most 64 MB")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num_frames", "80", "Must be 4n + 1 from 5 to 241. Use"),
        ("width", "481", "Must be a multiple of 16 from 64 to 1920. Use"),
        ("num_inference_steps", "0", "Must be from 1 to 200."),
        ("num_inference_steps", "1000000000", "Must be from 1 to 200."),
        ("seed", "-1", "Must be from 0 to 9007199254740991."),
        ("prompt", "x" * 1_000_000, "at most 10000 characters fit"),
    ],
)
async def test_a_bad_value_is_told_at_its_field_while_it_is_typed(
    stack: PageProcess, open_page: OpenPage, name: str, value: str, words: str
) -> None:
    async with open_page(stack.url) as page:
        await page.get_by_label("Resolution", exact=True).select_option("custom")
        await page.get_by_role("radio", name="Advanced").check()
        await write(page, name, value)

        await expect(field(page, name).get_by_role("alert")).to_contain_text(words)
        await expect(page.get_by_role("alert")).to_have_count(1)


async def test_a_prompt_of_emoji_is_kept_as_it_was_written(
    stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(stack.url) as page:
        await write(page, "prompt", "🐱 👩‍👩‍👧 猫")
        await page.reload()

        await expect(page.get_by_label("Prompt", exact=True)).to_have_value("🐱 👩‍👩‍👧 猫")
