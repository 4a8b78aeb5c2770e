"""What it costs to store clip n of an endless video, and to go on after a worker was lost.

    python -m benchmarks.bench_svi [clips]

(a) Ours: `Run.save_clip` for clips 1 to n; each is encoded by itself, stored whole and told. After
    each one the first clip of another job is stored, and their processor times are compared: both
    for what else the machine has to do.
(b) What upstream's script does, done after each clip as a video that shall survive needs it: all
    frames stay in memory and the whole video is encoded anew. The same frames, the same encoder.
(c) Joining all clips at the end, by stream copy.
(d) svi jobs on the demo model in one warm process: from the job's arrival to the first step of the
    next clip, for a new job, between two clips, and for a job that was lost after some clips.

Frames are made beforehand, and clips are equal, so that only the place in the video differs. The
peak is that of this process and ffmpeg together, sampled every 10 ms.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.table import print_json, print_table
from core.clips import StoredClip, place
from core.config import CoreConfig
from core.controlnets import ControlnetShelf
from core.fetch import Inputs
from core.lora import LoraShelf
from core.media import write_mp4
from core.progress import ProgressMeter
from core.protocol import Job
from core.run import Run
from core.storage import LocalStorage

Frame = npt.NDArray[np.uint8]
Size = tuple[int, int]

FIRST: Final = 81
OVERLAP: Final = 5
FPS: Final = 16
CRF: Final = 18
LATENT_BYTES: Final = 400_000
"""Anchor and three motion latents of a 480 x 832 video, in 16 bits."""
SMALL: Final = (256, 256)
USUAL: Final = (832, 480)
UPSTREAM_CLIPS: Final = 12
USUAL_CLIPS: Final = 6
SAMPLE_S: Final = 0.01


def frames(size: Size, count: int = FIRST) -> list[Frame]:
    """A picture with fine detail that moves, and a little noise."""
    width, height = size
    random = np.random.default_rng(0)
    detail = random.integers(0, 60, (height, width, 3))
    wave = np.add.outer(np.arange(height), np.arange(width))[..., None] % 196
    still = (wave + detail).astype(np.int16)
    made = []
    for index in range(count):
        noise = random.integers(-2, 3, still.shape, dtype=np.int16)
        made.append((np.roll(still, 3 * index, 1) + noise).clip(0, 255).astype(np.uint8))
    return made


# --- memory --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Peak:
    """The largest resident memory of this process and its children."""

    size_bytes: int = 0

    def look(self) -> None:
        """Take one sample."""
        tasks = Path("/proc/self/task").glob("*/children")
        children = [pid for task in tasks for pid in _text(task).split() if _is_another(pid)]
        now = sum(_rss(pid) for pid in ("self", *children))
        self.size_bytes = max(self.size_bytes, now)


@contextmanager
def watched() -> Iterator[Peak]:
    """Samples the memory while it lasts."""
    peak, done = Peak(), threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_S):
            peak.look()

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _rss(pid: str) -> int:
    text = _text(Path(f"/proc/{pid}/statm"))
    return int(text.split()[1]) * 4096 if text else 0


def _is_another(pid: str) -> bool:
    """Not a child that is still a copy of this process, whose memory would count twice."""
    return _text(Path(f"/proc/{pid}/cmdline")) != _text(Path("/proc/self/cmdline"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has just ended
        return ""


# --- what is measured ----------------------------------------------------------------------------


@dataclass(slots=True)
class Measured:
    """Seconds, seconds of processors, and peak bytes for each clip, in order."""

    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    @contextmanager
    def clip(self) -> Iterator[None]:
        """Measures one clip."""
        began, used = time.perf_counter(), sum(os.times()[:4])
        with watched() as peak:
            yield
        self.seconds.append(time.perf_counter() - began)
        self.cpu_s.append(sum(os.times()[:4]) - used)
        self.peaks.append(peak.size_bytes)

    def growth(self, first: Measured) -> tuple[float, float]:
        """Work and peak of the last quarter against first clips stored in turns; 1 is flat."""
        part = max(1, len(self.seconds) // 4)
        times = [a / b for a, b in zip(self.cpu_s, first.cpu_s, strict=True)]
        peaks = [a / b for a, b in zip(self.peaks, first.peaks, strict=True)]
        return median(times[-part:]), median(peaks[-part:])

    def row(self, what: str, clip: int) -> dict[str, str]:
        """One clip as a row of a table."""
        seconds, peak = self.seconds[clip - 1], self.peaks[clip - 1]
        cpu = f"{self.cpu_s[clip - 1]:.2f}"
        return {
            "what": what,
            "clip": str(clip),
            "s": f"{seconds:.2f}",
            "CPU s": cpu,
            "peak MB": _mb(peak),
        }


def new_run(folder: Path) -> Run:
    """The handle of a job whose clips are stored in `folder`."""
    config = CoreConfig(
        data_dir=folder / "data", models_dir=folder / "models", outputs_dir=folder / "outputs"
    )
    return Run(
        Job(workflow="svi", params={}, attempt=1),
        emit=lambda event: None,
        cancelled=lambda: False,
        load=lambda spec, run: None,
        inputs=Inputs(config),
        storage=LocalStorage(config.outputs_dir),
        meter=ProgressMeter(),
        loras=LoraShelf(config),
        controlnets=ControlnetShelf(config),
    )


def stored(
    folder: Path, made: list[Frame], size: Size, clips: int
) -> tuple[Run, list[StoredClip], Measured, Measured]:
    """Store so many clips of a job, and after each one the first clip of another job."""
    run, film = new_run(folder), list[StoredClip]()
    ours, first = Measured(), Measured()
    for index in range(clips):
        added = made[OVERLAP if index else 0 :]
        with ours.clip():
            film.append(save(run, film[-1] if film else None, added, size))
        with first.clip():
            save(new_run(folder), None, added, size)
    return run, film, ours, first


def save(run: Run, parent: StoredClip | None, added: list[Frame], size: Size) -> StoredClip:
    """Store the clip after `parent`."""
    return run.save_clip(
        place(parent, prompt="a boat", seed=7, settings={}),
        iter(added),
        size=size,
        frames_added=len(added),
        fps=FPS,
        crf=CRF,
        latents=lambda path: _write(path, LATENT_BYTES),
        pixels=dict,
    )


def encoded_anew(folder: Path, made: list[Frame], size: Size, clips: int) -> Measured:
    """The whole video so far after each clip."""
    measured, video = Measured(), list[Frame]()
    for index in range(clips):
        with measured.clip():
            video += [frame.copy() for frame in made[OVERLAP if index else 0 :]]
            path = folder / "upstream.mp4"
            write_mp4(path, video, size=size, fps=FPS, crf=CRF, metadata={})
    return measured


def joined_s(run: Run, film: list[StoredClip]) -> tuple[float, int]:
    """Seconds to join the clips, and the video's bytes."""
    began = time.perf_counter()
    video = run.save_joined(film, None, crf=CRF)
    return time.perf_counter() - began, video.size_bytes


def _write(path: Path, size_bytes: int) -> None:
    path.write_bytes(bytes(size_bytes))


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f}"


# --- tables --------------------------------------------------------------------------------------


def compare(size: Size, clips: int, upstream_clips: int) -> dict[str, Any]:
    """Both ways at one size, and joining at the end; prints the tables."""
    made = frames(size)
    with tempfile.TemporaryDirectory(prefix="diffbox-bench-") as folder:
        run, film, ours, first = stored(Path(folder), made, size, clips)
        shares = sorted({1, max(1, clips // 4), max(1, clips // 2), clips})
        joins = {count: joined_s(run, film[:count]) for count in shares}
        theirs = encoded_anew(Path(folder), made, size, upstream_clips)
    shown = sorted({1, 2, 3, 6, 12, clips // 4, clips // 2, clips} & set(range(1, clips + 1)))
    rows = [ours.row("ours", clip) for clip in shown]
    rows += [theirs.row("all anew", clip) for clip in shown if clip <= upstream_clips]
    cpu_growth, peak_growth = ours.growth(first)
    print_table(
        f"Storing clip n at {size[0]} x {size[1]}, {FIRST} frames: ours, the last quarter "
        f"against first clips: CPU x {cpu_growth:.2f}, peak x {peak_growth:.2f}",
        rows,
    )
    print_table(
        "Joining n clips",
        [
            {"clips": n, "s": f"{spent:.2f}", "MB": f"{total / 1e6:.1f}"}
            for n, (spent, total) in joins.items()
        ],
    )
    return {
        "clips": clips,
        "ours_s": [round(value, 3) for value in ours.seconds],
        "ours_peak_mb": [round(value / 1e6) for value in ours.peaks],
        "ours_cpu_s": [round(value, 2) for value in ours.cpu_s],
        "cpu_growth": round(cpu_growth, 3),
        "peak_growth": round(peak_growth, 3),
        "anew_s": [round(value, 3) for value in theirs.seconds],
        "anew_cpu_s": [round(value, 2) for value in theirs.cpu_s],
        "anew_peak_mb": [round(value / 1e6) for value in theirs.peaks],
        "join_s": {str(n): round(spent, 3) for n, (spent, _) in joins.items()},
    }


def main(clips: int = 60) -> dict[str, Any]:
    """Run all parts, print, and return the result."""
    result: dict[str, Any] = {
        "small": compare(SMALL, clips, min(clips, UPSTREAM_CLIPS)),
        "usual": compare(USUAL, min(clips, USUAL_CLIPS), min(clips, USUAL_CLIPS)),
    }
    # Only now: torch would be a part of the peaks above.
    from benchmarks.svi_resume import resumed  # noqa: PLC0415

    result["resume"] = resumed()
    print_json("svi", result)
    return result


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
