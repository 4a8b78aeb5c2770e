"""Uploads in, uploads and outputs out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pictures import BAD, encoded, gradient, video
from tests.support.server import Served, serving_api

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("api")
    env = {"DIFFBOX_IMAGE_MAX_MB": "1", "DIFFBOX_VIDEO_MAX_MB": "2"}
    with serving_api(folder, **env) as served:
        yield served


@pytest.fixture(scope="module")
def output(api: Served) -> str:
    """The path of a video that a job has made."""
    record = api.until(api.submit("sleeper", seconds=0.1), "completed")
    return str(record["artifacts"][0]["url"])


def test_a_picture_is_kept_and_described(api: Served) -> None:
    content = encoded(gradient(96, 64))
    answer = api.http.post("/api/uploads?filename=cat.png", content=content, headers=PNG)
    body = answer.json()
    assert answer.status_code == 201
    assert (body["width"], body["height"], body["media_type"]) == (96, 64, "image/png")
    assert body["size_bytes"] == len(content) and body["ref"].startswith("upload:")
    back = api.http.get("/api/uploads/" + body["ref"].partition(":")[2])
    assert back.content == content and back.headers["content-type"] == "image/png"


def test_a_video_is_kept_and_described(api: Served, tmp_path: Path) -> None:
    content = video(tmp_path / "a.mp4").read_bytes()
    headers = {"content-type": "video/mp4"}
    body = api.http.post("/api/uploads", content=content, headers=headers).json()
    assert (body["media_type"], body["width"], body["height"]) == ("video/mp4", 96, 64)


def test_a_large_picture_is_413_and_says_the_limit(api: Served) -> None:
    answer = api.http.post("/api/uploads", content=b"\x89PNG" + b"0" * 1_000_000, headers=PNG)
    assert answer.status_code == 413 and "1 MB" in answer.json()["error"]["message"]


def test_a_large_picture_without_a_length_is_413_too(api: Served) -> None:
    def chunks() -> Iterator[bytes]:
        yield encoded(gradient())
        for _ in range(20):
            yield b"0" * 100_000

    answer = api.http.post("/api/uploads", content=chunks(), headers=PNG)
    assert answer.status_code == 413 and "1 MB" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_picture_is_422_and_leaves_nothing(api: Served, name: str) -> None:
    before = set(api.services.settings.uploads_dir.iterdir())
    answer = api.http.post("/api/uploads", content=BAD[name][0](), headers=PNG)
    assert answer.status_code == 422 and answer.json()["error"]["code"] == "input_rejected"
    assert set(api.services.settings.uploads_dir.iterdir()) == before


def test_an_upload_of_another_type_is_415(api: Served) -> None:
    headers = {"content-type": "text/html"}
    answer = api.http.post("/api/uploads", content=b"<html>", headers=headers)
    assert answer.status_code == 415


@pytest.mark.parametrize("sha256", ["0" * 64, "x", "..%2f..%2fjobs.json"])
def test_an_unknown_upload_is_404(api: Served, sha256: str) -> None:
    assert api.http.get(f"/api/uploads/{sha256}").status_code == 404


def test_an_output_is_served_with_safe_headers(api: Served, output: str) -> None:
    answer = api.http.get(output)
    assert answer.status_code == 200 and answer.content[4:8] == b"ftyp"
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox"
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=-5", -5, None), ("bytes=7-", 7, None)],
)
def test_a_range_of_an_output_is_206(
    api: Served, output: str, asked: str, start: int, stop: int | None
) -> None:
    whole = api.http.get(output).content
    part = api.http.get(output, headers={"range": asked})
    assert part.status_code == 206 and part.content == whole[start:stop]


def test_a_range_behind_the_end_is_416(api: Served, output: str) -> None:
    assert api.http.get(output, headers={"range": "bytes=99999999-"}).status_code == 416


def test_head_of_an_output_has_its_length_and_no_body(api: Served, output: str) -> None:
    answer = api.http.head(output)
    assert answer.status_code == 200 and answer.content == b""
    assert int(answer.headers["content-length"]) == len(api.http.get(output).content)


def test_an_unchanged_output_is_304(api: Served, output: str) -> None:
    etag = api.http.get(output).headers["etag"]
    answer = api.http.get(output, headers={"if-none-match": etag})
    assert answer.status_code == 304 and answer.content == b""


def test_an_output_can_be_downloaded_under_its_name(api: Served, output: str) -> None:
    disposition = api.http.get(output + "?download=1").headers["content-disposition"]
    assert disposition == f'attachment; filename="{output.rpartition("/")[2]}"'


def test_what_a_browser_could_run_is_a_download(api: Served) -> None:
    folder = api.services.settings.outputs_dir / "job" / "1"
    folder.mkdir(parents=True)
    for name in ("page.html", "picture.svg"):
        (folder / name).write_text("<script>alert(1)</script>")
        answer = api.http.get(f"/outputs/job/1/{name}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path", ["a/1/../../x", "%2e%2e/%2e%2e/etc", "a/1/..%2f..%2fjobs.json", "a/1/%00", "..//a"]
)
def test_a_path_that_leads_out_of_the_outputs_is_404(api: Served, path: str) -> None:
    assert api.http.get(f"/outputs/{path}").status_code == 404


def test_a_link_that_leads_out_and_a_half_written_file_are_404(api: Served) -> None:
    settings = api.services.settings
    folder = settings.outputs_dir / "links" / "1"
    folder.mkdir(parents=True)
    (folder / "out.png").symlink_to(settings.data_dir / "jobs.json")
    (folder / ".video.mp4.partial.mp4").write_bytes(b"half")
    assert api.http.get("/outputs/links/1/out.png").status_code == 404
    assert api.http.get("/outputs/links/1/.video.mp4.partial.mp4").status_code == 404
