"""Segments: each plays alone, all of them play as one, joined they are an ordinary mp4."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest

from core.media import SegmentInfo, join_segments, read_embedded, write_segment
from core.media.boxes import read_fragmented
from core.media.ffmpeg import encode
from tests.support.pictures import gradient, moving

SIZE = (96, 64)
Times = list[int]


def segment(path: Path, frames: int, start: int, *, fps: int = 16, crf: int = 18) -> SegmentInfo:
    source = moving(start, frames, SIZE)
    return write_segment(path, source, size=SIZE, fps=fps, crf=crf, start_frame=start)


def clips(folder: Path, counts: tuple[int, ...], *, fps: int = 16) -> list[Path]:
    """Segments of so many frames, one after the other."""
    start, made = 0, []
    for index, count in enumerate(counts):
        made.append(folder / f"clip {index}'s.mp4")
        segment(made[-1], count, start, fps=fps)
        start += count
    return made


def encoded_otherwise(path: Path, frames: int, start: int) -> None:
    """A segment as another encoder might have made it: baseline profile, so another start."""
    other = ["-profile:v", "baseline", "-x264-params", "8x8dct=0:cabac=0:bframes=0:weightp=0"]
    flags = "+empty_moov+default_base_moof+frag_keyframe+frag_discont+skip_trailer"
    flags += "+negative_cts_offsets"
    times = ["-output_ts_offset", str(start / 16), "-movflags", flags]
    encode(path, moving(start, frames, SIZE), size=SIZE, fps=16, crf=20, output=[*other, *times])


def decoded(path: Path) -> tuple[list[str], Times]:
    """A hash of each frame's pixels, and when it is shown after the first one, in frames."""
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "framemd5", "-"]
    rows = listed(argv)
    return [row[5].strip() for row in rows], [int(row[2]) for row in rows]


def packets(path: Path) -> tuple[Times, Times]:
    """When frames are decoded, and when they are shown, after the first one, in ticks."""
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-c", "copy"]
    rows = listed([*argv, "-f", "framehash", "-hash", "crc32", "-"])
    first = min(int(row[2]) for row in rows)
    return [int(row[1]) for row in rows], sorted(int(row[2]) - first for row in rows)


def listed(argv: list[str]) -> list[list[str]]:
    """The rows that ffmpeg writes, cut at commas; it must not complain."""
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return [row.split(",") for row in done.stdout.splitlines() if not row.startswith("#")]


def told(path: Path) -> str:
    """What ffmpeg tells about a file."""
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    return subprocess.run(argv, check=False, capture_output=True, text=True).stderr


def key_frames(path: Path) -> Times:
    """Which frames are key frames, the first one being 0."""
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-skip_frame", "nokey"]
    argv += ["-i", str(path), "-fps_mode", "passthrough", "-f", "framemd5", "-"]
    return [int(row[2]) for row in listed(argv)]


def concatenated(paths: list[Path], whole: Path) -> Path:
    """The first one's start and the fragments of all, byte after byte."""
    content = paths[0].read_bytes()
    for path in paths[1:]:
        part = path.read_bytes()
        content += part[part.index(b"moof") - 4 :]
    whole.write_bytes(content)
    return whole


def test_a_segment_begins_where_the_one_before_it_ends(tmp_path: Path) -> None:
    info = segment(tmp_path / "a.mp4", 76, 81)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content[info.init_bytes + 4 : info.init_bytes + 8] == b"moof"
    assert content[4:8] == b"ftyp"
    assert read_fragmented(tmp_path / "a.mp4").start_s == Fraction(81, 16)
    assert decoded(tmp_path / "a.mp4")[1] == list(range(76))
    assert info.frames == 76
    first = np.asarray(info.first_frame)
    assert (first == next(moving(81, 1, SIZE))).all()


@pytest.mark.parametrize("box", [b"sidx", b"styp", b"mfra", b"elst", b"Lavf"])
def test_nothing_is_in_it_that_holds_for_one_file_only(tmp_path: Path, box: bytes) -> None:
    segment(tmp_path / "a.mp4", 9, 81)
    assert box not in (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize("fps", [7, 16, 24, 30])
def test_fragments_of_all_behind_the_first_start_are_one_video(tmp_path: Path, fps: int) -> None:
    parts = clips(tmp_path, (41, 36, 1, 36), fps=fps)
    starts = {path.read_bytes()[: path.read_bytes().index(b"moof") - 4] for path in parts}
    assert len(starts) == 1
    whole = concatenated(parts, tmp_path / "whole.mp4")
    pixels, shown = decoded(whole)
    assert shown == list(range(114))
    assert pixels == [pixel for path in parts for pixel in decoded(path)[0]]
    decode_times, show_times = packets(whole)
    assert len({after - before for before, after in pairwise(decode_times)}) == 1
    assert len({after - before for before, after in pairwise(show_times)}) == 1


def test_late_segments_are_placed_to_the_tick(tmp_path: Path) -> None:
    segment(tmp_path / "a.mp4", 5, 1_000_001, fps=24)
    assert read_fragmented(tmp_path / "a.mp4").start_s == Fraction(1_000_001, 24)


def test_a_key_frame_comes_every_two_seconds(tmp_path: Path) -> None:
    still = (np.asarray(gradient(*SIZE)) for _ in range(81))
    write_segment(tmp_path / "a.mp4", still, size=SIZE, fps=16, crf=18, start_frame=0)
    assert key_frames(tmp_path / "a.mp4") == [0, 32, 64]


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        segment(tmp_path / f"{name}.mp4", 41, 76)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_the_machine_does_not_choose_how_many_threads_encode(tmp_path: Path) -> None:
    """x264's pictures depend on it; the stream tells how many there were."""
    segment(tmp_path / "a.mp4", 9, 0)
    assert b" threads=4 lookahead_threads=1 " in (tmp_path / "a.mp4").read_bytes()


def test_quality_does_not_change_how_segments_are_decoded(tmp_path: Path) -> None:
    """So that a job that goes on with another one can be watched without a break."""
    starts = set()
    for crf in (8, 30):
        info = segment(tmp_path / f"{crf}.mp4", 9, 0, crf=crf)
        starts.add((tmp_path / f"{crf}.mp4").read_bytes()[: info.init_bytes])
    assert len(starts) == 1


def test_joined_they_are_an_ordinary_mp4(tmp_path: Path) -> None:
    parts = clips(tmp_path, (41, 36, 5))
    metadata = {"diffbox": "1", "clips": [{"prompt": "it's a 'boat'; 🚤"}]}
    join_segments(tmp_path / "all.mp4", parts, metadata=metadata)
    pixels, shown = decoded(tmp_path / "all.mp4")
    assert pixels == [pixel for path in parts for pixel in decoded(path)[0]]
    assert shown == list(range(82))
    facts = told(tmp_path / "all.mp4")
    assert "Duration: 00:00:05.13, start: 0.000000" in facts  # 82 frames at 16 a second
    assert "yuv420p(tv, bt709, progressive), 96x64" in facts
    assert read_embedded(tmp_path / "all.mp4") == metadata
    content = (tmp_path / "all.mp4").read_bytes()
    assert b"moof" not in content
    assert content.index(b"moov") < content.index(b"mdat")


def test_no_rounding_adds_up_over_many_segments(tmp_path: Path) -> None:
    """A frame of 1/24 s is no whole number of microseconds."""
    parts = clips(tmp_path, (1, 5, 2, 1, 4, 1, 7, 1, 1, 3), fps=24)
    join_segments(tmp_path / "all.mp4", parts, metadata={})
    assert packets(tmp_path / "all.mp4")[1] == [512 * frame for frame in range(26)]


def test_a_single_segment_that_begins_late_becomes_a_video_from_zero(tmp_path: Path) -> None:
    segment(tmp_path / "a.mp4", 9, 81)
    join_segments(tmp_path / "all.mp4", [tmp_path / "a.mp4"], metadata={})
    assert decoded(tmp_path / "all.mp4")[1] == list(range(9))


def test_segments_of_another_encoder_are_decoded_by_their_own_start(tmp_path: Path) -> None:
    ours, other, again = (tmp_path / f"{name}.mp4" for name in "abc")
    segment(ours, 40, 0)
    encoded_otherwise(other, 40, 40)
    segment(again, 40, 80)
    starts = {path.read_bytes()[: path.read_bytes().index(b"moof")] for path in (ours, other)}
    assert len(starts) == 2
    join_segments(tmp_path / "all.mp4", [ours, other, again], metadata={})
    pixels, shown = decoded(tmp_path / "all.mp4")
    assert pixels == [pixel for path in (ours, other, again) for pixel in decoded(path)[0]]
    assert shown == list(range(120))


def test_segments_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    first, second = clips(tmp_path, (9, 9))
    with pytest.raises(ValueError, match=r"clip 0's.mp4 is not later than clip 1's.mp4"):
        join_segments(tmp_path / "all.mp4", [second, first], metadata={})


def test_a_damaged_segment_is_not_joined(tmp_path: Path) -> None:
    first, second = clips(tmp_path, (9, 9))
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"clip 1's.mp4 is not a whole fragmented mp4"):
        join_segments(tmp_path / "all.mp4", [first, second], metadata={})


def test_no_frames_are_an_error(tmp_path: Path) -> None:
    none: Iterator[np.ndarray[Any, Any]] = iter(())
    with pytest.raises(ValueError, match="no frame"):
        write_segment(tmp_path / "a.mp4", none, size=SIZE, fps=16, crf=18, start_frame=0)


def test_an_error_of_the_frame_source_ends_the_encoder(tmp_path: Path) -> None:
    def breaking() -> Iterator[np.ndarray[Any, Any]]:
        yield from moving(0, 1, SIZE)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_segment(tmp_path / "a.mp4", breaking(), size=SIZE, fps=16, crf=18, start_frame=0)


@pytest.mark.parametrize("write", ["segment", "join"])
def test_a_full_disk_is_told_as_such(tmp_path: Path, write: str) -> None:
    noise = (np.random.default_rng(i).integers(0, 255, (64, 96, 3), np.uint8) for i in range(200))
    target = Path("/dev/full") if write == "segment" else tmp_path / "a.mp4"
    with pytest.raises(OSError, match="No space left on device"):
        write_segment(target, noise, size=SIZE, fps=16, crf=0, start_frame=0)
        join_segments(Path("/dev/full"), [tmp_path / "a.mp4"], metadata={})
