"""mp4: right size, frames, fps, colours and metadata; errors leave a reason."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest

from core.errors import InputRejected
from core.media import embedded, probe, read_embedded, read_video, write_mp4, write_poster
from core.protocol import Job
from tests.support.pictures import gradient, video

ARRAY = np.asarray(gradient(96, 64))
JOB = Job(
    workflow="i2v",
    params={
        "prompt": 'a "boat"; # = \\ \n 🚤',
        "seed": 7,
        "input_image": "https://host/a.png?token=secret",
        "end_image": "data:image/png;base64,AAAA",
    },
)


def write(path: Path, metadata: dict[str, Any] | None = None, frames: int = 9) -> None:
    source: Iterator[np.ndarray[Any, Any]] = (np.roll(ARRAY, 4 * i, 1) for i in range(frames))
    write_mp4(path, source, size=(96, 64), fps=8, crf=10, metadata=metadata or {})


def test_size_frames_and_rate_are_as_asked(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    reader: Any = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    header = next(reader)
    reader.close()
    assert (header["source_size"], header["fps"], header["codec"]) == ((96, 64), 8.0, "h264")
    assert header["pix_fmt"].startswith("yuv420p")
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a.mp4"))[0] == 9


def test_the_index_stands_before_the_pictures(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_colours_come_back(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    first = iio.imread(tmp_path / "a.mp4", index=0)
    assert np.abs(first.astype(int) - ARRAY).mean() < 4
    assert b"colr" in (tmp_path / "a.mp4").read_bytes()


def test_metadata_survives_a_copy_and_holds_no_secret(tmp_path: Path) -> None:
    provenance = {"models": [{"id": "wan-demo"}], "versions": {"torch": "2"}}
    metadata = embedded(JOB, provenance)
    write(tmp_path / "a.mp4", metadata)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    copy = [ffmpeg, "-v", "error", "-i", str(tmp_path / "a.mp4"), "-c", "copy"]
    subprocess.run([*copy, str(tmp_path / "b.mp4")], check=True)
    found = read_embedded(tmp_path / "b.mp4")
    assert found == metadata
    assert found["params"]["prompt"] == JOB.params["prompt"]
    assert found["params"]["input_image"] == "https://host/a.png"
    assert found["params"]["end_image"].startswith("data:sha256:")
    assert (found["seed"], found["models"]) == (7, [{"id": "wan-demo"}])


def test_a_foreign_file_has_no_metadata(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    assert read_embedded(tmp_path / "a.mp4") is None


def test_the_poster_is_the_first_frame(tmp_path: Path) -> None:
    info = write_mp4(
        tmp_path / "a.mp4", iter([ARRAY] * 2), size=(96, 64), fps=8, crf=10, metadata={}
    )
    write_poster(tmp_path / "a.webp", info.first_frame)
    assert iio.imread(tmp_path / "a.webp").shape == (64, 96, 3)
    assert info.frames == 2


def test_a_frame_of_another_size_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected"):
        write_mp4(tmp_path / "a.mp4", iter([ARRAY[:32]]), size=(96, 64), fps=8, crf=10, metadata={})


def test_an_error_of_the_frame_source_ends_the_encoder(tmp_path: Path) -> None:
    def breaking() -> Iterator[np.ndarray[Any, Any]]:
        yield ARRAY
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_mp4(tmp_path / "a.mp4", breaking(), size=(96, 64), fps=8, crf=10, metadata={})


def test_a_full_disk_is_told_as_such() -> None:
    frames = (np.random.default_rng(i).integers(0, 255, (64, 96, 3), np.uint8) for i in range(200))
    with pytest.raises(OSError, match="No space left on device"):
        write_mp4(Path("/dev/full"), frames, size=(96, 64), fps=8, crf=0, metadata={})


def test_a_video_is_read_back_at_another_size(tmp_path: Path) -> None:
    read = read_video(
        video(tmp_path / "a.mp4"), field="input_video", size=(32, 32), fit="crop", frames=5
    )
    assert [frame.size for frame in read] == [(32, 32)] * 5


def test_a_video_that_is_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRejected, match="has 9 frames; 17 are needed"):
        read_video(
            video(tmp_path / "a.mp4"), field="input_video", size=(32, 32), fit="pad", frames=17
        )


def test_probe_tells_what_a_video_is(tmp_path: Path) -> None:
    found = probe(video(tmp_path / "a.mp4"))
    assert (found.kind, found.media_type, found.width, found.height) == (
        "video",
        "video/mp4",
        96,
        64,
    )


@pytest.mark.parametrize(
    "content", [b"\0\0\0\x18ftypisom" + b"\0" * 60, b"\x1aE\xdf\xa3" + b"webm" * 20]
)
def test_a_damaged_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputRejected, match="damaged"):
        probe(tmp_path / "a.mp4")


def test_a_playlist_in_disguise_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", encoding="utf-8")
    with pytest.raises(InputRejected, match="nor a video"):
        probe(tmp_path / "a.mp4")
