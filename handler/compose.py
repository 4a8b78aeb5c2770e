"""Joins an Engine and the pipelines: the only place outside core.pipelines that imports torch.

`build_engine` is what `DIFFBOX_ENGINE` names by default; it runs in the engine's child process.
"""

from __future__ import annotations

import os
import threading
from functools import partial

import torch

from core.engine import Engine
from core.pipelines import build, fits, imports, versions
from core.pipelines.device import cpu_threads, detect
from core.workflows import register
from handler.config import from_env


def build_engine() -> Engine:
    """An engine on this machine's device, with the workflows that the environment adds.

    Raises:
        ConfigError: a variable is wrong, or the installed DiffSynth is another one.
    """
    config = from_env(pid=os.getpid())
    for path in config.workflows:
        register(path)
    device = detect()
    if device.kind == "cpu":
        torch.set_num_threads(cpu_threads())
    # What the first job still has to import is loaded beside the idle engine.
    threading.Thread(target=imports.warm, name="warm", daemon=True).start()
    return Engine(
        load=partial(build, config=config, device=device),
        config=config,
        device=device,
        versions=versions(),
        fits=partial(fits, config=config, device=device),
    )
