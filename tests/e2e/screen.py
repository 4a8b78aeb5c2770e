"""What a user does on the page, in a user's words."""

from __future__ import annotations

import base64
from pathlib import Path

from playwright.async_api import Locator, Page, expect

ASSETS = Path(__file__).parent.parent / "assets"
PHOTO = ASSETS / "photo.jpg"
ROTATED = ASSETS / "photo_rotated.jpg"

_FILES = """(name, type, text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], name, { type }));
  return files;
}"""
_DROP = f"""([zone, ...file]) => {{
  const options = {{ dataTransfer: ({_FILES})(...file), bubbles: true }};
  for (const kind of ["dragenter", "dragover", "drop"])
    document.querySelector(zone).dispatchEvent(new DragEvent(kind, options));
}}"""
_PASTE = f"""(file) => document.body.dispatchEvent(new ClipboardEvent("paste",
  {{ clipboardData: ({_FILES})(...file), bubbles: true, cancelable: true }}))"""


def field(page: Page, name: str) -> Locator:
    """A parameter's place in the form."""
    return page.locator(f'[data-field="{name}"]')


async def drop(page: Page, name: str, path: Path, media_type: str) -> None:
    """Drag a file onto a parameter."""
    zone = f'[data-field="{name}"] .drop'
    await page.evaluate(_DROP, [zone, path.name, media_type, _base64(path)])


async def paste(page: Page, path: Path, media_type: str) -> None:
    """Paste a file, with no parameter in particular having the focus."""
    await page.evaluate(_PASTE, [path.name, media_type, _base64(path)])


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


async def write(page: Page, name: str, value: str) -> None:
    """Type into a parameter."""
    await field(page, name).locator("textarea, input:not([type=range])").first.fill(value)


async def generate(page: Page) -> str:
    """Press Generate; gives the id of the job that is shown then."""
    before = page.url
    await page.get_by_role("button", name="Generate").click()
    await page.wait_for_function("before => location.href !== before", arg=before)
    return page.url.rpartition("job=")[2]


async def start_sleeper(page: Page, prompt: str, *, seconds: float, steps: int = 50) -> str:
    """Start a job that takes `seconds`; gives its id."""
    await write(page, "prompt", prompt)
    await write(page, "seconds", str(seconds))
    await write(page, "steps", str(steps))
    return await generate(page)


def stage(page: Page) -> Locator:
    """Where the chosen job is shown."""
    return page.get_by_role("region", name="Result")


async def expect_running(page: Page) -> None:
    """The stage shows a job that runs and gets on."""
    bar = stage(page).get_by_role("progressbar")
    await expect(bar).to_be_visible()
    await expect(bar).not_to_have_attribute("aria-valuenow", "0")


def clips(page: Page) -> Locator:
    """The clips of the job that is shown, to choose from."""
    return page.get_by_role("list", name="Clips", exact=True)


def plan(page: Page) -> Locator:
    """Where the clips to come are changed."""
    return page.get_by_role("region", name="Clips to come")


async def open_job(page: Page, url: str, job_id: str) -> None:
    """The page of one job."""
    await page.goto(f"{url}/jobs/{job_id}")
    await page.wait_for_function("window.did_handshake === true")
