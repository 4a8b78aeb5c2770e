"""Run: pictures are stored as they are, large ones with a poster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.config import CoreConfig
from core.controlnets import ControlnetShelf
from core.fetch import Inputs
from core.lora import LoraShelf
from core.media import read_embedded
from core.progress import ProgressMeter
from core.protocol import Job
from core.run import Run
from core.storage import LocalStorage
from tests.support.pictures import gradient


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = CoreConfig(data_dir=tmp_path, models_dir=tmp_path, outputs_dir=tmp_path / "outputs")
    return Run(
        Job(workflow="painter", params={"seed": 5}, attempt=1),
        emit=lambda _: None,
        cancelled=lambda: False,
        load=lambda spec, run: None,
        inputs=Inputs(config),
        storage=LocalStorage(config.outputs_dir),
        meter=ProgressMeter(),
        loras=LoraShelf(config),
        controlnets=ControlnetShelf(config),
    )


def test_a_picture_is_stored_pixel_by_pixel_with_its_metadata(run: Run, tmp_path: Path) -> None:
    picture = gradient(64, 48)
    made = run.save_image(picture)
    assert run.artifacts == [made]
    path = tmp_path / "outputs" / made.url
    with Image.open(path) as stored:
        assert np.array_equal(np.asarray(stored), np.asarray(picture))
    metadata = read_embedded(path)
    assert metadata is not None
    assert (metadata["job"], metadata["seed"]) == (run.job.id, 5)


def test_a_large_picture_has_a_small_poster(run: Run) -> None:
    made = run.save_image(gradient(1024, 512))
    assert run.artifacts[0] == made
    poster = run.artifacts[1]
    assert (made.width, made.media_type) == (1024, "image/png")
    assert (poster.width, poster.height, poster.media_type) == (640, 320, "image/webp")
