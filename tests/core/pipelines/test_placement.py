"""Placement: which pipeline is kept where, on which cards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core import catalog
from core.catalog import Role
from core.config import CoreConfig, VramSetting
from core.errors import ConfigError
from core.pipelines import build, loading, placement
from core.pipelines.device import detect
from core.pipelines.placement import GIB, Placement, choose, fits, stored_parameters
from core.pipelines.wan_video import WanVideo
from core.protocol import Device
from core.workflows.base import PipelineSpec
from tests.core.pipelines.demo_runs import DEMO, Watched, arguments

WAN = 2 * 14.3 + 5.7 + 0.13
"""Billions of parameters: two experts, T5, VAE."""
QWEN = 20.4 + 8.3 + 0.13
"""Transformer, Qwen2.5-VL 7B, VAE."""
CARDS = {"24": 23.6, "32": 31.4, "48": 47.4, "80": 79.1, "96": 95.0, "141": 139.8}
"""GiB that cards of that name have."""


def gpu(gib: float) -> Device:
    total = int(gib * GIB)
    return Device(kind="cuda", name="gpu", memory_total_bytes=total, memory_free_bytes=total)


def chosen(billions: float, card: str, host_gib: int, setting: VramSetting = "auto") -> Placement:
    weights = int(billions * 2e9)
    return choose(setting, gpu(CARDS[card]), weights_bytes=weights, host_free_bytes=host_gib * GIB)


@pytest.mark.parametrize(
    ("billions", "host_gib", "expected"),
    [
        (WAN, 128, "offload offload offload full full full"),
        (WAN, 64, "fp8 fp8 fp8 full full full"),
        (WAN, 32, "disk disk disk full full full"),
        (QWEN, 128, "offload offload offload full full full"),
        (QWEN, 64, "offload offload offload full full full"),
        (QWEN, 48, "fp8 fp8 fp8 full full full"),
        (QWEN, 24, "disk disk disk full full full"),
    ],
)
def test_cards_and_memory_decide(billions: float, host_gib: int, expected: str) -> None:
    found = [chosen(billions, card, host_gib).name for card in CARDS]
    assert found == expected.split()


@pytest.mark.parametrize("setting", ["full", "offload", "fp8", "disk"])
def test_a_setting_decides_instead(setting: Any) -> None:
    for card in CARDS:
        assert chosen(WAN, card, 128, setting).name == setting


def test_what_offloads_leaves_some_of_the_card_free() -> None:
    assert chosen(WAN, "24", 128).vram_limit_gib == pytest.approx(21.6)
    assert chosen(WAN, "80", 128).vram_limit_gib is None


def test_a_processor_keeps_everything_and_refuses_the_rest() -> None:
    cpu = gpu(8).model_copy(update={"kind": "cpu"})
    assert choose("auto", cpu, weights_bytes=10**12, host_free_bytes=0) == Placement(name="full")
    with pytest.raises(ConfigError, match="DIFFBOX_VRAM_POLICY=fp8 needs a GPU"):
        choose("fp8", cpu, weights_bytes=1, host_free_bytes=0)


def test_full_leaves_diffsynths_vram_management_off() -> None:
    assert Placement(name="full").fields(torch.bfloat16, "high") == {}


@pytest.mark.parametrize(
    ("name", "device", "kept"),
    [
        ("offload", "cpu", torch.bfloat16),
        ("fp8", "cpu", torch.float8_e4m3fn),
        ("disk", "disk", "disk"),
    ],
)
def test_the_others_turn_it_on(name: Any, device: str, kept: Any) -> None:
    fields = Placement(name=name, vram_limit_gib=20).fields(torch.bfloat16, "high")
    assert (fields["offload_device"], fields["offload_dtype"]) == (device, kept)
    assert (fields["computation_device"], fields["computation_dtype"]) == ("cuda", torch.bfloat16)
    assert fields["preparing_device"] == "cuda"
    assert all(value is not None for value in fields.values())


@pytest.mark.parametrize(("role", "kept"), [("text_encoder", True), ("vae", False)])
def test_fp8_does_not_round_what_makes_the_pixels(role: Any, kept: bool) -> None:
    fields = Placement(name="fp8", vram_limit_gib=20).fields(torch.bfloat16, role)
    assert (fields["offload_dtype"] == torch.float8_e4m3fn) is kept


@pytest.fixture
def as_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds the demo as it would be placed on a GPU, with the processor in the GPU's place."""
    fields = Placement.fields

    def on_cpu(self: Placement, dtype: torch.dtype, role: Role) -> dict[str, Any]:
        found = fields(self, dtype, role)
        return {name: "cpu" if value == "cuda" else value for name, value in found.items()}

    monkeypatch.setattr(Placement, "fields", on_cpu)
    # DiffSynth asks the device's module for both, and torch's for processors has neither.
    monkeypatch.setattr(torch.cpu, "empty_cache", lambda: None, raising=False)
    monkeypatch.setattr(torch.cpu, "mem_get_info", lambda device: (0, 0), raising=False)

    def built(config: CoreConfig, placed: Placement) -> Any:
        monkeypatch.setattr(loading, "choose", lambda *args, **kwargs: placed)
        return build(DEMO, Watched(config).run, config=config, device=detect())

    return built


@pytest.mark.parametrize(
    ("placement", "error"),
    [
        # 0 leaves no room for layers on the device, 1 has room for all.
        (Placement(name="offload", vram_limit_gib=0), 0.0),
        (Placement(name="offload", vram_limit_gib=1), 0.0),
        (Placement(name="disk", vram_limit_gib=0), 0.0),
        (Placement(name="disk", vram_limit_gib=1), 0.0),
        (Placement(name="fp8", vram_limit_gib=1), 0.1),
    ],
)
def test_only_fp8_changes_the_video(
    as_gpu: Any, config: CoreConfig, wan: WanVideo, placement: Placement, error: float
) -> None:
    placed = as_gpu(config, placement)
    expected, found = (
        adapter.denoise(Watched(config).run, **arguments()) for adapter in (wan, placed)
    )
    assert float((found - expected).norm() / expected.norm()) <= error
    assert placed.measured()["placement"] == placement.name


# --- beside others --------------------------------------------------------------------------------


@pytest.fixture
def a14b(monkeypatch: pytest.MonkeyPatch, config: CoreConfig) -> Any:
    """Asks whether the A14B pair fits, with so much free on the card and in host memory."""
    monkeypatch.setattr(placement, "stored_parameters", lambda row, config: int(WAN * 1e9))

    def ask(card: str, vram_gib: float, host_gib: float, own_gib: float = 0) -> bool:
        monkeypatch.setattr(placement, "free_memory", lambda device: int(vram_gib * GIB))
        monkeypatch.setattr(placement, "host_memory", lambda: (0, int(host_gib * GIB)))
        monkeypatch.setattr(placement, "own_memory", lambda: int(own_gib * GIB))
        spec = PipelineSpec(family="wan_video", model="wan2.2-i2v-a14b")
        return fits(spec, config=config, device=gpu(CARDS[card]))

    return ask


def test_two_full_pipelines_share_a_large_card_only(a14b: Any) -> None:
    assert a14b("141", 85, 256)
    assert not a14b("141", 60, 256)
    assert not a14b("80", 20, 256)


def test_what_waits_in_host_memory_needs_room_there(a14b: Any) -> None:
    assert a14b("24", 22, 80)
    assert not a14b("24", 10, 80)
    assert not a14b("24", 10, 8)


def test_it_is_not_rounded_to_fit_beside_others(a14b: Any) -> None:
    assert a14b("24", 22, 64)  # alone, with so little memory: fp8
    assert not a14b("24", 22, 64, own_gib=60)  # room for bfloat16 when the others are gone


def test_the_demo_fits_and_is_counted_by_its_headers(config: CoreConfig, wan: object) -> None:
    cpu = gpu(8).model_copy(update={"kind": "cpu"})
    assert fits(DEMO, config=config, device=cpu)
    row = catalog.model("wan-demo")
    assert 3_000_000 < stored_parameters(row, config) < 20_000_000
