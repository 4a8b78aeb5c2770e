"""The Qwen demo's files: the same everywhere, small, and what the real ones are like."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from transformers import Qwen2Tokenizer

from core import catalog
from core.pipelines import demo_qwen
from core.pipelines.qwen_image import QwenImage
from core.pipelines.stock import MODEL_CONFIGS, hash_model_file, wan_video_vae
from core.pipelines.stock_qwen import qwen_image_vae
from tests.core.pipelines.demo_runs import Watched
from tests.core.pipelines.qwen_runs import edited, spots

# Of recipe 1. A change here is a change of everybody's demo weights: count RECIPE up.
KNOWN: Final = {
    "transformer": "4a3651fde84a7cdbc83248240ead7ae3e8f645fad635228202157cf5d7adbcb0",
    "controlnet_inpaint": "206efc008172e03a13e6b98baab736cf4913853e8d0c0bc2264ff55318b0681e",
}
TEMPLATE: Final = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, "
    "texture, objects, background), then explain how the user's text instruction should alter or "
    "modify the image."
)
"""How DiffSynth's prompt for edits begins; it drops the first 64 tokens."""


def digests(models_dir: Path) -> dict[str, str]:
    files = sorted((models_dir / demo_qwen.FOLDER).rglob("*.safetensors"))
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_files_are_the_same_bytes_everywhere(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        demo_qwen.ensure(tmp_path / folder)
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    assert KNOWN.items() <= first.items()


def test_files_are_where_the_catalog_says_and_small(tmp_path: Path) -> None:
    demo_qwen.ensure(tmp_path)
    for model in ("qwen-demo", "qwen-demo-2509"):
        assert catalog.missing_files(catalog.model(model), tmp_path) == ()
        for kind in demo_qwen.CONTROLNETS:
            ref = catalog.controlnet(kind, model)
            assert ref is not None and catalog.locate(ref.file, tmp_path)
    files = (tmp_path / demo_qwen.FOLDER).rglob("*.*")
    assert sum(file.stat().st_size for file in files) < 30_000_000


def test_loader_recognises_each_file_once_registered(tmp_path: Path) -> None:
    demo_qwen.ensure(tmp_path)
    demo_qwen.register()
    demo_qwen.register()
    for path in (tmp_path / demo_qwen.FOLDER).glob("*.safetensors"):
        digest = hash_model_file(str(path))
        assert len([row for row in MODEL_CONFIGS if row["model_hash"] == digest]) == 1


def test_what_the_prompt_begins_with_is_longer_than_what_is_dropped(tmp_path: Path) -> None:
    demo_qwen.ensure(tmp_path)
    tokenizer = Qwen2Tokenizer.from_pretrained(str(tmp_path / demo_qwen.FOLDER / "tokenizer"))
    assert len(tokenizer(TEMPLATE).input_ids) > 64


def test_an_edit_shows_the_edited_picture(qwen: QwenImage, watched: Watched) -> None:
    picture, other = spots(1), spots(2)
    made = edited(qwen, watched.run, edit_image=[picture], num_inference_steps=8, cfg_scale=1.0)
    near, far = (np.abs(made - np.asarray(p, dtype=float)).mean() for p in (picture, other))
    assert near < far / 1.3


def test_the_vae_keeps_colours(qwen: QwenImage) -> None:
    pipe: Any = qwen._pipe
    picture = spots(3)
    with torch.no_grad():
        latents = pipe.vae.encode(pipe.preprocess_image(picture))
        back = np.asarray(pipe.vae_output_to_image(pipe.vae.decode(latents)), dtype=float)
    for channel in range(3):
        wanted = np.asarray(picture, dtype=float)[..., channel].mean()
        assert back[..., channel].mean() == pytest.approx(wanted, abs=30)


def test_the_latents_have_the_statistics_of_wan_2_1() -> None:
    """So that Wan's published colours serve for previews of Qwen Image as well."""
    ours = qwen_image_vae.QwenImageVAE(**demo_qwen.VAE)
    wan = wan_video_vae.WanVideoVAE()
    assert torch.equal(ours.mean.flatten(), wan.mean)
    assert torch.allclose(ours.std.flatten(), 1 / wan.std)
