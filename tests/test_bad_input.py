"""What people and programs get wrong, at REST and on the command line of a running diffbox.

The form's side is in tests/e2e; what the disk, the port and the weights get wrong is in
tests/test_bad_place.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from PIL import Image

from controlplane import cli
from core.media.images import read_image
from tests.support import workflows
from tests.support.pictures import BAD, encoded, gradient
from tests.support.stack import Stack, running_stack

pytestmark = pytest.mark.serial

EMOJI: Final = "🐱 a кот 👩‍👩‍👧 on a boat 猫"
FILES: Final[dict[str, tuple[Callable[[], bytes], int, str]]] = {
    **{name: (made, 422, words) for name, (made, words) in BAD.items()},
    "not an image": (BAD["not an image"][0], 422, "not a PNG, JPEG or WebP picture"),
    "gif": (BAD["gif"][0], 422, "not a PNG, JPEG or WebP picture"),
    "svg": (BAD["svg"][0], 422, "not a PNG, JPEG or WebP picture"),
    "empty": (BAD["empty"][0], 422, "the file is empty"),
    "80 MB": (lambda: encoded(gradient()) + bytes(80_000_000), 413, "at most 64 MB"),
}
PARAMS: Final[tuple[tuple[str, Any, str], ...]] = (
    ("num_frames", 80, "must be 4n + 1 from 5 to 241; nearest: 77 or 81"),
    ("width", 481, "must be a multiple of 16 from 64 to 1920; nearest: 480 or 496"),
    ("num_inference_steps", 0, "must be from 1 to 200"),
    ("num_inference_steps", 10**9, "must be from 1 to 200"),
    ("seed", -1, "must be from 0 to 9007199254740991"),
    ("seed", 2**63, "must be from 0 to 9007199254740991"),
    ("seed", "abc", "must be a whole number from 0 to 9007199254740991"),
    ("prompt", "x" * 100_000, "must have at most 10000 characters"),
    ("model", "sdxl", "is not one of auto, wan2.2-i2v-a14b, wan2.1"),
)
"""What i2v refuses: parameter, value, words. On the command line one argument has at most 128 kB,
so that the prompt of a megabyte is a test of its own."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack"), DIFFBOX_BACKEND="memory") as stack:
        yield stack


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    gradient().save(path)
    return path


def upload(stack: Stack, content: bytes) -> httpx.Response:
    headers = {"content-type": "image/png"}
    return httpx.post(stack.url + "/api/uploads", content=content, headers=headers, timeout=30)


def submit(stack: Stack, **params: Any) -> dict[str, Any]:
    """The error that REST answers."""
    raw = {"prompt": "a boat", "input_image": "https://example.org/a.png", **params}
    answer = httpx.post(stack.url + "/api/workflows/i2v", json=raw)
    assert answer.status_code == 422, answer.text
    return dict(answer.json()["error"])


def generate(*args: str) -> int:
    return cli.main(["generate", "i2v", "--prompt", "a boat", "--output", "never.mp4", *args])


@pytest.fixture(params=["here", "on a server"])
def where(
    request: pytest.FixtureRequest, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """`diffbox generate` with and without a server, which must not differ in what they refuse."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFBOX_URL", stack.url if request.param == "on a server" else "")
    return str(request.param)


@pytest.mark.parametrize("name", FILES)
def test_rest_refuses_a_bad_file_with_words_and_keeps_nothing(stack: Stack, name: str) -> None:
    made, status, words = FILES[name]
    answer = upload(stack, made())
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, "input_rejected")
    assert words in error["message"] and not error["retryable"]
    assert list((stack.folder / "data/uploads").glob("*.partial")) == []


@pytest.mark.parametrize("name", [name for name in FILES if name != "80 MB"])
def test_the_command_line_refuses_a_bad_file_at_its_flag(
    where: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, _, words = FILES[name]
    path = tmp_path / "file"  # no suffix: what a file is, its bytes tell
    path.write_bytes(made())
    assert generate("--input-image", str(path)) == cli.EXIT_REJECTED, where
    told = capsys.readouterr().err
    assert words in told and told.endswith("(--input-image)\n")


def test_a_file_of_80_mb_is_refused_at_its_flag(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(FILES["80 MB"][0]())
    assert generate("--input-image", str(path), "--url", stack.url) == cli.EXIT_REJECTED
    told = capsys.readouterr().err
    assert told == "error: the image is too large: at most 64 MB (--input-image)\n"


@pytest.mark.parametrize(("field", "value", "words"), PARAMS)
def test_rest_refuses_a_bad_value_at_its_field(
    stack: Stack, field: str, value: Any, words: str
) -> None:
    error = submit(stack, **{field: value})
    assert error["code"] == "invalid_params" and not error["retryable"]
    assert [problem["field"] for problem in error["problems"]] == [field]
    assert words in error["problems"][0]["message"] and len(error["message"]) < 300


@pytest.mark.parametrize("case", PARAMS, ids=range(len(PARAMS)))
def test_the_command_line_refuses_a_bad_value_at_its_flag(
    where: str, photo: Path, case: tuple[str, Any, str], capsys: pytest.CaptureFixture[str]
) -> None:
    field, value, words = case
    flag = "--" + field.replace("_", "-")
    assert generate("--input-image", str(photo), flag, str(value)) == cli.EXIT_REJECTED, where
    told = capsys.readouterr().err
    assert words in told and told.endswith(f"({flag})\n")


def test_an_unknown_field_is_named_with_the_nearest_one(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    [problem] = submit(stack, num_frame=9)["problems"]
    said = "'num_frame' is not a parameter; did you mean 'num_frames'?"
    assert problem == {"field": "num_frame", "message": said}
    with pytest.raises(SystemExit) as ended:
        generate("--num-frame", "9")
    assert ended.value.code == cli.EXIT_REJECTED
    assert "unrecognized arguments: --num-frame 9" in capsys.readouterr().err


def test_a_prompt_of_a_megabyte_is_refused_in_few_words(stack: Stack) -> None:
    error = submit(stack, prompt="x" * 1_000_000)
    assert error["problems"][0]["field"] == "prompt"
    assert "at most 10000 characters" in error["message"] and len(error["message"]) < 200


def test_a_prompt_of_emoji_comes_back_as_it_was(stack: Stack) -> None:
    job_id = stack.submit(workflows.Noop.id, prompt=EMOJI)
    assert stack.until(job_id, "completed")["params"]["prompt"] == EMOJI


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x112] = 6  # "rotate by 90 degrees to the right to see it upright"
    return encoded(gradient().rotate(90, expand=True), "JPEG", quality=98, exif=exif)


def sixteen_bits() -> bytes:
    grey = np.asarray(gradient().convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey))


def half_clear() -> bytes:
    image = gradient().convert("RGBA")
    image.putalpha(128)
    return encoded(image)


GOOD: Final[dict[str, tuple[Callable[[], bytes], Callable[[], Image.Image]]]] = {
    "CMYK": (lambda: encoded(gradient().convert("CMYK"), "JPEG", quality=98), gradient),
    "16 bits": (sixteen_bits, lambda: gradient().convert("L").convert("RGB")),
    "alpha": (
        half_clear,
        lambda: Image.blend(Image.new("RGB", (96, 64), "white"), gradient(), 0.5),
    ),
    "rotated": (rotated, gradient),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_unusual_picture_is_taken_and_read_as_it_looks(
    stack: Stack, tmp_path: Path, name: str
) -> None:
    made, looks = GOOD[name]
    kept = upload(stack, made()).json()
    assert (kept["width"], kept["height"]) == (96, 64)
    path = tmp_path / "kept"
    path.write_bytes(httpx.get(stack.url + "/api/uploads/" + kept["ref"][7:]).content)
    read = np.asarray(read_image(path, field="")).astype(int)
    assert np.abs(read - np.asarray(looks())).mean() < 2


def test_two_clients_that_cancel_end_the_job_once(stack: Stack) -> None:
    job_id = stack.submit(workflows.Sleeper.id, seconds=60, steps=600)
    stack.until_working(job_id)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(stack.request, "DELETE", f"/api/jobs/{job_id}") for _ in range(2)]
        assert all(answer.result()["cancel_requested"] for answer in asked)
    stack.until(job_id, "cancelled")
    assert stack.terminal_events(job_id) == ["cancelled"]
    assert stack.request("DELETE", f"/api/jobs/{job_id}")["status"] == "cancelled"
