"""Controlnet files: found, checked by their headers, and what is said about the others."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pytest
from safetensors.numpy import save

from core import catalog
from core.config import CoreConfig
from core.controlnets import ControlnetShelf
from core.errors import DiffboxError, InvalidParams, ModelMissing

WIDTH, LAYERS = 32, 3
MODEL: Final = "qwen-image-edit-2511"
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture
def shelf(tmp_path: Path) -> ControlnetShelf:
    """With a small base model in the place of the real one."""
    base: Shapes = {"img_in.weight": (WIDTH, 64)}
    base |= {f"transformer_blocks.{n}.attn.to_q.weight": (WIDTH, WIDTH) for n in range(LAYERS)}
    folder = tmp_path / "base/Qwen/Qwen-Image-Edit-2511/transformer"
    write(folder / "diffusion_pytorch_model.safetensors", base)
    return ControlnetShelf(CoreConfig(data_dir=tmp_path, models_dir=tmp_path, outputs_dir=tmp_path))


def write(path: Path, shapes: Shapes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}))


def controlnet(width: int = WIDTH, layers: int = LAYERS, inputs: int = 64) -> Shapes:
    shapes: Shapes = {"img_in.weight": (width, inputs)}
    names = (f"controlnet_blocks.{n}.input_proj.weight" for n in range(layers))
    return shapes | {name: (width, width) for name in names}


def put(root: Path, kind: str, shapes: Shapes) -> Path:
    ref = catalog.controlnet(kind, MODEL)
    assert ref is not None
    path = root / "base" / ref.file.repo / ref.file.pattern
    write(path, shapes)
    return path


def refusal(shelf: ControlnetShelf, kind: str) -> DiffboxError:
    with pytest.raises((ModelMissing, InvalidParams)) as caught:
        shelf.use(kind, MODEL)
    assert [problem.field for problem in caught.value.problems] == ["controlnet"]
    return caught.value


@pytest.mark.parametrize(("kind", "inputs"), [("canny", 64), ("depth", 64), ("inpaint", 68)])
def test_a_fitting_file_is_taken_with_its_fingerprint(
    shelf: ControlnetShelf, tmp_path: Path, kind: str, inputs: int
) -> None:
    path = put(tmp_path, kind, controlnet(inputs=inputs))
    use = shelf.use(kind, MODEL)
    assert (use.path, use.kind) == (path, kind)
    told = use.provenance()
    assert told["id"] == f"qwen-image-{kind}" and len(told["sha256"]) == 64
    assert str(tmp_path) not in str(told)


def test_a_missing_file_is_named_with_its_repository(shelf: ControlnetShelf) -> None:
    error = refusal(shelf, "depth")
    assert isinstance(error, ModelMissing)
    wanted = "DiffSynth-Studio/Qwen-Image-Blockwise-ControlNet-Depth: model.safetensors"
    assert wanted in error.message


@pytest.mark.parametrize(
    ("kind", "shapes", "said"),
    [
        ("inpaint", controlnet(), "3 blocks of width 32 with 64 inputs"),
        ("canny", controlnet(inputs=68), "3 blocks of width 32 with 68 inputs"),
        ("canny", controlnet(width=16), "3 blocks of width 16 with 64 inputs"),
        ("canny", controlnet(layers=2), "2 blocks of width 32 with 64 inputs"),
        ("depth", {"double_blocks.0.img_attn.qkv.weight": (9, 3)}, "a controlnet for FLUX"),
        ("depth", {"down_blocks.0.resnets.0.conv1.weight": (4, 4)}, "for Stable Diffusion"),
        ("depth", {"vace_blocks.0.proj.weight": (4, 4)}, "a controlnet for Wan"),
        ("depth", {"transformer_blocks.0.lora_A.weight": (4, 4)}, "a LoRA"),
        ("depth", {"transformer_blocks.0.attn.to_q.weight": (4, 4)}, "a transformer"),
        ("depth", {"weight": (4, 4)}, "1 tensors such as 'weight'"),
    ],
)
def test_another_file_is_refused_with_what_it_seems_to_be(
    shelf: ControlnetShelf, tmp_path: Path, kind: str, shapes: Shapes, said: str
) -> None:
    put(tmp_path, kind, shapes)
    message = refusal(shelf, kind).message
    assert said in message
    assert "Qwen Image Edit 2511 needs 3 blocks of width 32" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"PK\x03\x04" + bytes(99), "pickle"), (b"", "damaged"), (b"\xff" * 40, "not a safetensors")],
)
def test_a_file_that_is_no_safetensors_is_refused(
    shelf: ControlnetShelf, tmp_path: Path, content: bytes, said: str
) -> None:
    put(tmp_path, "canny", controlnet()).write_bytes(content)
    assert said in refusal(shelf, "canny").message


def test_without_the_base_model_that_one_is_told_when_it_is_loaded(
    shelf: ControlnetShelf, tmp_path: Path
) -> None:
    for path in tmp_path.rglob("diffusion_pytorch_model.safetensors"):
        path.unlink()
    put(tmp_path, "canny", controlnet(width=8))
    assert shelf.use("canny", MODEL).kind == "canny"


def test_a_model_without_controlnets_says_so(shelf: ControlnetShelf) -> None:
    with pytest.raises(InvalidParams, match="no controlnet 'canny' for Wan 2.2 I2V A14B"):
        shelf.use("canny", "wan2.2-i2v-a14b")
