"""Reading weights: the same bits as safetensors' own reader, and what ends it."""

from __future__ import annotations

import itertools
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.config import CoreConfig
from core.errors import JobCancelled, ModelMissing
from core.pipelines.loading import target_of
from core.pipelines.placement import Placement
from core.pipelines.reading import Target, Tensors, read_tensors
from core.pipelines.wan_video import WanVideo
from core.protocol import Device

BF16 = Target(device="cpu", dtype=torch.bfloat16)
GPU = Device(kind="cuda", name="a GPU", memory_total_bytes=1, memory_free_bytes=1)


def nothing() -> None:
    """Never ends it."""


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Two files of any bits, NaNs too, with odd sizes and an odd header."""
    torch.manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randint(-(2**15), 2**15, shape, dtype=torch.int16).view(torch.bfloat16)

    save_file(
        {"a": random(7, 3), "b": random(1000, 33), "scalar": random(), "none": random(0, 4)},
        tmp_path / "1.safetensors",
        metadata={"format": "pt", "words": "ü" * 3},
    )
    save_file({"c": random(5), "flag": torch.tensor([True, False])}, tmp_path / "2.safetensors")
    return [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float8_e4m3fn])
def test_tensors_of_all_shards_are_the_same_bits(shards: list[Path], dtype: torch.dtype) -> None:
    expected = {
        name: tensor.to(dtype) for path in shards for name, tensor in load_file(path).items()
    }
    assert_same(read_tensors(shards, Target(device="cpu", dtype=dtype), nothing), expected)


def test_by_way_of_blocks_that_are_smaller_than_tensors(shards: list[Path]) -> None:
    """As to a GPU, whose blocks only differ in being pinned."""
    blocks: SimpleQueue[torch.Tensor] = SimpleQueue()
    blocks.put(torch.empty(1001, dtype=torch.uint8))
    expected = {
        name: tensor.to(torch.bfloat16)
        for path in shards
        for name, tensor in load_file(path).items()
    }
    assert_same(read_tensors(shards, BF16, nothing, blocks), expected)


def test_a_check_that_raises_ends_it(shards: list[Path]) -> None:
    asked = itertools.count(1)

    def check() -> None:
        if next(asked) == 3:
            raise JobCancelled("enough")

    with pytest.raises(JobCancelled):
        read_tensors(shards, BF16, check)
    assert next(asked) == 4


def test_a_file_that_became_shorter_is_named(shards: list[Path]) -> None:
    shards[0].write_bytes(shards[0].read_bytes()[:-100])
    with pytest.raises(ModelMissing, match=r"1\.safetensors can't be read: it became shorter"):
        read_tensors(shards, BF16, nothing)


def test_numbers_that_torch_does_not_have_are_named(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    path = tmp_path / "4.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(ModelMissing, match=r"4\.safetensors holds numbers of type F4; these"):
        read_tensors([path], BF16, nothing)


@pytest.mark.parametrize("name", ["full", "offload", "fp8"])
def test_read_to_where_diffsynth_would(name: str) -> None:
    placement = Placement(name=name)  # type: ignore[arg-type]
    target = target_of(placement, GPU, torch.bfloat16)
    kept = torch.float8_e4m3fn if name == "fp8" else torch.bfloat16
    device = "cuda" if name == "full" else "cpu"
    assert target == Target(device=device, dtype=kept)


def test_what_stays_on_the_disk_is_not_read() -> None:
    assert target_of(Placement(name="disk"), GPU, torch.bfloat16) is None


def test_a_loaded_model_has_the_bits_of_its_file(config: CoreConfig, wan: WanVideo) -> None:
    path = config.models_dir / "base/diffbox/wan-demo/high_noise_model.safetensors"
    expected = {name: tensor.float() for name, tensor in load_file(path).items()}
    assert_same(dict(wan._pipe.dit.state_dict()), expected)
