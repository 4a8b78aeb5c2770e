"""What this machine computes on: one CUDA device, or the processor where there is none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

from core.protocol import Device

_CGROUP = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self")


def detect() -> Device:
    """The device that pipelines are put on, with its memory as it is now."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Device(
            kind="cuda",
            name=torch.cuda.get_device_name(),
            memory_total_bytes=total,
            memory_free_bytes=free,
        )
    total, free = host_memory()
    return Device(kind="cpu", name=_processor(), memory_total_bytes=total, memory_free_bytes=free)


def free_memory(device: Device) -> int:
    """Bytes that are free on the device now; what torch holds back counts as free."""
    if device.kind == "cpu":
        return host_memory()[1]
    free, _ = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def peak_memory(device: Device) -> int:
    """Most bytes that were taken since the last call: of the GPU, or by this process."""
    if device.kind == "cuda":
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak
    peak = _kilobytes(_PROCESS / "status", "VmHWM")
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # resets VmHWM (man 5 proc)
    return peak


def dtype_for(device: Device) -> torch.dtype:
    """What weights and activations are kept in.

    bfloat16 is what Wan is trained in. On a processor only the demo runs, and few of them have
    bfloat16 arithmetic: without it a step takes several times as long as in float32.
    """
    return torch.bfloat16 if device.kind == "cuda" else torch.float32


def cpu_threads() -> int:
    """Threads for torch on a processor: all cores but one.

    One stays for the control plane and ffmpeg. OpenMP threads that have to share a core wait for
    each other at every operator: measured at 3 to 15 times the time of fewer threads.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


def host_memory() -> tuple[int, int]:
    """The machine's memory, or its container's: (total, free) in bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, _available(page)
    limit = _number(_CGROUP / "memory.max")
    if limit is not None and limit < total:
        used = (_number(_CGROUP / "memory.current") or 0) - _cached()
        return limit, max(0, min(free, limit - used))
    return total, free


def own_memory() -> int:
    """Bytes of host memory that this process keeps: nearly all of it weights."""
    return _kilobytes(_PROCESS / "status", "RssAnon")


def _cached() -> int:
    """Bytes of files that the container's count holds, and that go when memory is wanted.

    After a download, or after weights were read once, they are as much as the weights.
    """
    rows = (line.split() for line in _text(_CGROUP / "memory.stat").splitlines())
    return sum(int(size) for name, size in rows if name in ("active_file", "inactive_file"))


def _available(page: int) -> int:
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable") or (
        os.sysconf("SC_AVPHYS_PAGES") * page
    )


def _kilobytes(path: Path, name: str) -> int:
    """In bytes, a figure that the kernel tells as "name: 123 kB"; 0 when it does not."""
    for line in _text(path).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _processor() -> str:
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "CPU"


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
