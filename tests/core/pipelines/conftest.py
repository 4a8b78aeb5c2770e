"""The demo pipeline, loaded once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from core.config import CoreConfig
from core.pipelines import build
from core.pipelines.device import detect
from core.pipelines.wan_video import WanVideo
from tests.core.pipelines.demo_runs import DEMO, Frames, Watched, folders, frames_by


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Several OpenMP threads on a busy machine wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> CoreConfig:
    return folders(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def wan(config: CoreConfig) -> WanVideo:
    return build(DEMO, Watched(config).run, config=config, device=detect())


@pytest.fixture
def watched(config: CoreConfig) -> Watched:
    return Watched(config)


@pytest.fixture(scope="session")
def usual_frames(wan: WanVideo, config: CoreConfig) -> Frames:
    """The video of the usual arguments."""
    frames = frames_by(wan, Watched(config).run)
    assert frames.dtype == np.uint8
    return frames
