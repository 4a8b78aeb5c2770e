"""The demo pipeline, loaded once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch

from core.config import CoreConfig
from core.engine import Engine
from core.pipelines import build
from core.pipelines.device import detect
from core.pipelines.qwen_image import QwenImage
from core.pipelines.wan_video import WanVideo
from tests.core.pipelines.demo_runs import DEMO, Frames, Watched, folders, frames_by
from tests.core.pipelines.qwen_runs import DEMO as QWEN_DEMO
from tests.core.pipelines.qwen_runs import Box, Pixels, edited


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
    adapter = build(DEMO, Watched(config).run, config=config, device=detect())
    assert isinstance(adapter, WanVideo)
    return adapter


@pytest.fixture
def watched(config: CoreConfig) -> Watched:
    return Watched(config)


@pytest.fixture(scope="session")
def usual_frames(wan: WanVideo, config: CoreConfig) -> Frames:
    """The video of the usual arguments."""
    frames = frames_by(wan, Watched(config).run)
    assert frames.dtype == np.uint8
    return frames


@pytest.fixture(scope="session")
def qwen(config: CoreConfig) -> QwenImage:
    adapter = build(QWEN_DEMO, Watched(config).run, config=config, device=detect())
    assert isinstance(adapter, QwenImage)
    return adapter


@pytest.fixture(scope="session")
def usual_edit(qwen: QwenImage, config: CoreConfig) -> Pixels:
    """The picture of the usual arguments."""
    return edited(qwen, Watched(config).run)


@pytest.fixture(scope="session")
def box(config: CoreConfig) -> Iterator[Box]:
    """An engine that loads the demo as a worker does."""
    device = detect()
    load = partial(build, config=config, device=device)
    engine = Engine(load=load, config=config, device=device, versions={})
    yield Box(engine, config)
    engine.close()
