"""LoRAs on loaded pipelines: what they add, and that nothing is left when they are off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.config import CoreConfig
from core.errors import JobCancelled, ModelMissing
from core.lora import LoraPart, LoraShelf, LoraUse
from core.pipelines import demo
from core.pipelines.lora import HotLoras
from core.pipelines.qwen_image import QwenImage
from core.pipelines.stock import (
    AutoWrappedLinear,
    AutoWrappedModule,
    enable_vram_management_recursively,
    wan_video_dit,
)
from core.pipelines.wan_video import WanVideo
from core.protocol import Progress, Stage
from tests.core.pipelines.demo_runs import Watched, arguments, frames_by
from tests.core.pipelines.qwen_runs import Pixels, edited

Wanted = tuple[str, float]
SVI: Final = ("wan-demo-svi", 1.0)
LIGHTNING: Final = ("wan-demo-lightning", 1.0)
STYLE: Final = ("wan-demo-style", 1.0)


def uses(config: CoreConfig, *wanted: Wanted) -> tuple[LoraUse, ...]:
    """Each on both experts."""
    parts = [
        LoraPart(place=f"lora[0].{expert}", expert=expert, name=name, strength=strength)
        for name, strength in wanted
        for expert in ("high", "low")
    ]
    return LoraShelf(config).uses("wan-demo", "i2v", parts)


def latents(wan: WanVideo, watched: Watched, *wanted: Wanted, **changes: Any) -> torch.Tensor:
    """What a job with these LoRAs makes."""
    wan.use_loras(uses(watched.config, *wanted), watched.run)
    return wan.denoise(watched.run, **arguments(**{"num_inference_steps": 2, **changes}))


@pytest.fixture(autouse=True)
def off_afterwards(wan: WanVideo, watched: Watched) -> Iterator[None]:
    yield
    watched.cancel = lambda: False
    wan.use_loras((), watched.run)


@pytest.fixture(scope="module")
def plain(wan: WanVideo, config: CoreConfig) -> torch.Tensor:
    """Of the pipeline as it was loaded, before any LoRA was on it."""
    given = arguments(num_inference_steps=2)
    return wan.denoise(Watched(config).run, **given)


# --- what it adds --------------------------------------------------------------------------------


@contextmanager
def fused(wan: WanVideo, config: CoreConfig, *wanted: Wanted) -> Iterator[None]:
    """W + strength * alpha / rank * B A, as papers write it, in the loaded weights."""
    kept: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    experts = {"high": wan._pipe.dit, "low": wan._pipe.dit2}
    for use in uses(config, *wanted):
        tensors = load_file(use.path)
        model = dict(experts[use.expert].named_modules())
        for module, pair in use.pairs.items():
            weight = model[module].weight
            kept.append((weight, weight.data.clone()))
            down, up = tensors[pair.down], tensors[pair.up]
            alpha = tensors[pair.alpha].item() if pair.alpha else len(down)
            weight.data += use.strength * alpha / len(down) * (up @ down)
    try:
        yield
    finally:
        for weight, before in reversed(kept):
            weight.data.copy_(before)


@pytest.mark.parametrize(
    "wanted",
    [(SVI,), (LIGHTNING,), (STYLE,), (SVI, LIGHTNING, STYLE), (("wan-demo-svi", -0.7),)],
    ids=["peft", "alpha", "underscores", "three at once", "negative"],
)
def test_it_computes_what_the_fused_weights_would(
    wan: WanVideo, watched: Watched, plain: torch.Tensor, wanted: tuple[Wanted, ...]
) -> None:
    hot = latents(wan, watched, *wanted)
    wan.use_loras((), watched.run)
    with fused(wan, watched.config, *wanted):
        cold = latents(wan, watched)
    torch.testing.assert_close(hot, cold, rtol=1e-3, atol=1e-3)
    assert (hot - plain).abs().mean() > 0.02


def test_the_demo_style_swaps_red_and_blue(wan: WanVideo, watched: Watched) -> None:
    before = frames_by(wan, watched.run)[0].astype(float)
    wan.use_loras(uses(watched.config, STYLE), watched.run)
    after = frames_by(wan, watched.run)[0].astype(float)
    kept = np.abs(after - before)[..., (0, 2)].mean()
    swapped = np.abs(after - before[..., ::-1])[..., (0, 2)].mean()
    assert swapped < kept / 3


def test_strength_is_linear(wan: WanVideo, watched: Watched) -> None:
    """At one Linear; the whole model is not."""
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))

    def added(strength: float) -> torch.Tensor:
        wan.use_loras((), watched.run)
        linear = wan._pipe.dit.blocks[0].self_attn.q
        without: torch.Tensor = linear(x)
        wan.use_loras(uses(watched.config, ("wan-demo-svi", strength)), watched.run)
        with_it: torch.Tensor = wan._pipe.dit.blocks[0].self_attn.q(x)
        return with_it - without

    once = added(1.0)
    assert once.abs().mean() > 0.01
    torch.testing.assert_close(added(-2.0), -2 * once, rtol=1e-4, atol=1e-5)


def test_each_expert_has_its_own_strength(wan: WanVideo, watched: Watched) -> None:
    high, low = uses(watched.config, SVI)
    wan.use_loras((high,), watched.run)
    only_high = wan.denoise(watched.run, **arguments(switch_dit_boundary=0.0))
    wan.use_loras((high, low), watched.run)
    both = wan.denoise(watched.run, **arguments(switch_dit_boundary=0.0))
    assert torch.equal(only_high, both)  # only the high expert computes below no boundary


def test_order_does_not_matter(wan: WanVideo, watched: Watched) -> None:
    one = latents(wan, watched, SVI, LIGHTNING)
    latents(wan, watched)
    other = latents(wan, watched, LIGHTNING, SVI)
    assert torch.equal(one, other)


def test_two_are_more_than_one(wan: WanVideo, watched: Watched) -> None:
    one = latents(wan, watched, SVI)
    assert not torch.equal(one, latents(wan, watched, SVI, LIGHTNING))


def test_no_strength_is_none(wan: WanVideo, watched: Watched, plain: torch.Tensor) -> None:
    assert torch.equal(latents(wan, watched, ("wan-demo-svi", 0.0)), plain)
    assert not getattr(wan._pipe.dit.blocks[0].self_attn.q, "lora_A_weights", [])  # costs nothing
    assert torch.equal(
        latents(wan, watched, SVI, ("wan-demo-lightning", 0.0)), latents(wan, watched, SVI)
    )


# --- nothing is left -----------------------------------------------------------------------------


def test_a_job_after_it_gets_the_same_bits_as_before(
    wan: WanVideo, watched: Watched, plain: torch.Tensor
) -> None:
    latents(wan, watched, SVI, LIGHTNING, STYLE)
    assert torch.equal(latents(wan, watched), plain)


def test_the_base_stays_where_it_is(wan: WanVideo, watched: Watched) -> None:
    def tensors() -> dict[str, int]:
        models = {"high": wan._pipe.dit, "low": wan._pipe.dit2}
        return {
            f"{expert}.{name}": tensor.data_ptr()
            for expert, model in models.items()
            for name, tensor in model.state_dict().items()
        }

    before = tensors()
    for wanted in ((SVI,), (LIGHTNING, STYLE), ()):
        wan.use_loras(uses(watched.config, *wanted), watched.run)
        assert tensors() == before


def test_after_a_cancel_in_the_middle_of_denoising(
    wan: WanVideo, watched: Watched, plain: torch.Tensor
) -> None:
    wan.use_loras(uses(watched.config, SVI), watched.run)
    steps = iter(range(10**9))
    watched.cancel = lambda: next(steps) > 25
    with pytest.raises(JobCancelled):
        wan.denoise(watched.run, **arguments())
    wan.recover()
    watched.cancel = lambda: False
    assert torch.equal(latents(wan, watched), plain)


@pytest.mark.parametrize("after", [1, 20, 100])
def test_after_a_cancel_while_they_are_read(
    wan: WanVideo, watched: Watched, plain: torch.Tensor, after: int
) -> None:
    asked = iter(range(10**9))
    watched.cancel = lambda: next(asked) >= after
    with pytest.raises(JobCancelled):
        wan.use_loras(uses(watched.config, SVI, LIGHTNING), watched.run)
    watched.cancel = lambda: False
    # As it stands, without anybody taking them off.
    now = wan.denoise(watched.run, **arguments(num_inference_steps=2))
    assert torch.equal(now, plain)


def test_after_a_file_that_breaks_off(
    wan: WanVideo, watched: Watched, plain: torch.Tensor, config: CoreConfig
) -> None:
    wan.use_loras(uses(config, SVI), watched.run)
    found = uses(config, ("wan-demo-lightning", 0.5))
    path = found[1].path
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    try:
        with pytest.raises(ModelMissing, match="'wan-demo-lightning' can't be read"):
            wan.use_loras(found, watched.run)
    finally:
        path.write_bytes(whole)
    now = wan.denoise(watched.run, **arguments(num_inference_steps=2))
    assert torch.equal(now, plain)


def test_after_a_model_that_is_not_built_as_its_files_said(
    wan: WanVideo, watched: Watched, plain: torch.Tensor, config: CoreConfig
) -> None:
    high, low = uses(config, SVI)
    odd = {**low.pairs, "blocks.99.ffn.0": low.pairs["blocks.0.ffn.0"]}
    with pytest.raises(RuntimeError, match="no linear modules blocks.99.ffn.0"):
        wan.use_loras((high, replace(low, pairs=odd)), watched.run)
    now = wan.denoise(watched.run, **arguments(num_inference_steps=2))
    assert torch.equal(now, plain)


def test_the_same_set_is_not_read_again(wan: WanVideo, watched: Watched) -> None:
    wan.use_loras(uses(watched.config, SVI, LIGHTNING), watched.run)
    beside = wan._pipe.dit.blocks[0].self_attn.q.lora_A_weights[0]
    wan.use_loras(uses(watched.config, LIGHTNING, SVI), watched.run)
    assert wan._pipe.dit.blocks[0].self_attn.q.lora_A_weights[0] is beside


def test_a_file_that_was_replaced_is_read_again(
    wan: WanVideo, watched: Watched, config: CoreConfig
) -> None:
    path = config.models_dir / "lora" / "mine.safetensors"
    tensors = load_file(uses(config, SVI)[0].path)
    part = LoraPart(place="", expert="high", name="mine.safetensors", strength=1.0)

    def on_it() -> torch.Tensor:
        wan.use_loras(LoraShelf(config).uses("wan-demo", "i2v", [part]), watched.run)
        found: torch.Tensor = wan._pipe.dit.blocks[0].ffn[0].lora_A_weights[0].clone()
        return found

    save_file(tensors, path)
    first = on_it()
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, path)
    assert torch.equal(on_it(), 2 * first)


def test_reading_them_is_told_as_loading(wan: WanVideo, watched: Watched) -> None:
    wan.use_loras(uses(watched.config, SVI), watched.run)
    told = [e for e in watched.events if isinstance(e, Progress) and e.stage is Stage.LOADING]
    assert [(event.step, event.steps) for event in told][-1] == (2, 2)


# --- offloaded and quantised models --------------------------------------------------------------


class Pipe:
    """As much of a DiffSynth pipeline as HotLoras knows."""

    torch_dtype = torch.float32
    device = "cpu"
    dit2 = None

    def __init__(self, dit: Any) -> None:
        self.dit = dit


def managed(config: CoreConfig, stored: torch.dtype) -> Any:
    """The demo's high expert as DiffSynth's loader wraps it for offload, on the processor.

    `stored` is what the weights wait in; they are computed in float32.
    """
    model = wan_video_dit.WanModel(**demo.DIT)
    weights = load_file(config.models_dir / demo.FOLDER / "high_noise_model.safetensors")
    model.load_state_dict(weights)
    waiting = {
        f"{state}_{what}": value
        for state in ("offload", "onload", "preparing")
        for what, value in (("dtype", stored), ("device", "cpu"))
    }
    wrapped: Mapping[type, type] = {
        wan_video_dit.Head: AutoWrappedModule,
        torch.nn.Linear: AutoWrappedLinear,
    }
    here = {**waiting, "computation_dtype": torch.float32, "computation_device": "cpu"}
    enable_vram_management_recursively(model, dict(wrapped), vram_config=here)
    model.vram_management_enabled = True
    for module in model.modules():
        if hasattr(module, "onload"):
            module.to(stored)
            module.onload()
    return model


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
@torch.no_grad()
def test_on_a_model_that_waits_in_another_place_or_type(
    wan: WanVideo, watched: Watched, stored: torch.dtype
) -> None:
    model = managed(watched.config, stored)
    hot = HotLoras(Pipe(model))
    x = torch.randn(1, 16, 128, generator=torch.Generator().manual_seed(0))
    t = torch.randn(1, 128, generator=torch.Generator().manual_seed(1))

    def outputs() -> tuple[torch.Tensor, torch.Tensor]:
        return model.blocks[0].ffn[0](x), model.head(x, t)

    before = outputs()
    found = [use for use in uses(watched.config, SVI, STYLE) if use.expert == "high"]
    hot.use(found, watched.run)
    after = outputs()
    for use, module, index in ((found[0], "blocks.0.ffn.0", 0), (found[1], "head.head", 1)):
        tensors, pair = load_file(use.path), use.pairs[module]
        seen = x if index == 0 else _head_input(model, x, t)
        scale = tensors[pair.alpha].item() / pair.rank if pair.alpha else 1
        expected = before[index] + scale * seen @ (tensors[pair.up] @ tensors[pair.down]).T
        torch.testing.assert_close(after[index], expected, rtol=1e-3, atol=1e-3)
    hot.use((), watched.run)
    assert all(torch.equal(a, b) for a, b in zip(outputs(), before, strict=True))


def _head_input(model: Any, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    head = model.head.module
    shift, scale = (head.modulation.to(x.dtype) + t.unsqueeze(1)).chunk(2, dim=1)
    seen: torch.Tensor = head.norm(x) * (1 + scale) + shift
    return seen


# --- Qwen ----------------------------------------------------------------------------------------


def on_qwen(config: CoreConfig, *wanted: Wanted) -> tuple[LoraUse, ...]:
    parts = [
        LoraPart(place="lora[0]", expert="transformer", name=name, strength=strength)
        for name, strength in wanted
    ]
    return LoraShelf(config).uses("qwen-demo", "qwen", parts)


def test_on_qwen_and_off_again(qwen: QwenImage, usual_edit: Pixels, watched: Watched) -> None:
    qwen.use_loras(on_qwen(watched.config, ("qwen-demo-lightning", 1.0)), watched.run)
    disturbed = edited(qwen, watched.run)
    qwen.use_loras(on_qwen(watched.config, ("qwen-demo-style", 1.0)), watched.run)
    styled = edited(qwen, watched.run).astype(float)
    qwen.use_loras((), watched.run)
    assert np.array_equal(edited(qwen, watched.run), usual_edit)
    assert np.abs(disturbed.astype(float) - usual_edit).mean() > 1
    before = usual_edit.astype(float)
    swapped = np.abs(styled - before[..., ::-1])[..., (0, 2)].mean()
    assert swapped < np.abs(styled - before)[..., (0, 2)].mean() / 2
