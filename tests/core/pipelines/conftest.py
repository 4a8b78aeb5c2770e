"""The demo pipeline, loaded once for all tests here."""

from __future__ import annotations

import pytest

from core.config import CoreConfig
from core.pipelines import build
from core.pipelines.device import detect
from core.pipelines.wan_video import WanVideo
from tests.core.pipelines.demo_runs import DEMO, Watched, folders


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> CoreConfig:
    return folders(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def wan(config: CoreConfig) -> WanVideo:
    return build(DEMO, Watched(config).run, config=config, device=detect())


@pytest.fixture
def watched(config: CoreConfig) -> Watched:
    return Watched(config)
