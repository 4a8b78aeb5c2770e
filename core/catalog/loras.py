"""The LoRAs that diffbox knows by name, and the presets that are made with them.

Sources: reference/diffsynth sections A.1, C.9 and D.6; the names of the files are their authors'.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from core.catalog.refs import LoraRef, Preset, WeightFile

_A14B: Final = ("wan2.2-i2v-a14b", "wan2.2-fun-a14b-control-camera")
_DEMO: Final = ("wan-demo", "wan-demo-camera")
_QWEN_DEMO: Final = ("qwen-demo", "qwen-demo-2509")
_SVI: Final = "version-2.0/SVI_Wan2.2-I2V-A14B_{}_noise_lora_v2.0_pro.safetensors"
_SEKO: Final = "Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1/{}_noise_model.safetensors"
_DISTILLED: Final = "wan2.2_i2v_A14b_{}_noise_lora_rank64_lightx2v_4step_1022.safetensors"
_LIGHTNING_2511: Final = "Qwen-Image-Edit-2511-Lightning-4steps-V1.0-bf16.safetensors"
_LIGHTNING_2509: Final = (
    "Qwen-Image-Edit-2509/Qwen-Image-Edit-2509-Lightning-{}steps-V1.0-bf16.safetensors"
)


def _file(repo: str, pattern: str) -> WeightFile:
    return WeightFile(role="lora", repo=repo, pattern=pattern)


def _pair(
    id_: str,
    title: str,
    models: tuple[str, ...],
    repo: str,
    pattern: str,
    *,
    demo: bool = False,
) -> LoraRef:
    """A Wan LoRA; `pattern` has {} where its two files say high or low."""
    return LoraRef(
        id=id_,
        title=title,
        family="wan_video",
        models=models,
        high=_file(repo, pattern.format("high")),
        low=_file(repo, pattern.format("low")),
        demo=demo,
        licence="Apache-2.0",
    )


def _single(
    id_: str,
    title: str,
    models: tuple[str, ...],
    repo: str,
    pattern: str,
    *,
    demo: bool = False,
) -> LoraRef:
    return LoraRef(
        id=id_,
        title=title,
        family="qwen_image",
        models=models,
        file=_file(repo, pattern),
        demo=demo,
        licence="Apache-2.0",
    )


LORAS: Final[tuple[LoraRef, ...]] = (
    _pair("svi-2.0-pro", "SVI 2.0 Pro", _A14B, "vita-video-gen/svi-model", _SVI),
    _pair(
        "wan2.2-lightning", "Wan 2.2 Lightning", _A14B, "lightx2v/Wan2.2-Distill-Loras", _DISTILLED
    ),
    _pair(
        "wan2.2-lightning-seko",
        "Wan 2.2 Lightning, Seko V1",
        _A14B,
        "lightx2v/Wan2.2-Lightning",
        _SEKO,
    ),
    _pair("wan-demo-svi", "Demo SVI", _DEMO, "diffbox/wan-demo", "svi_{}.safetensors", demo=True),
    _pair(
        "wan-demo-lightning",
        "Demo Lightning",
        _DEMO,
        "diffbox/wan-demo",
        "lightning_{}.safetensors",
        demo=True,
    ),
    # One file for both experts.
    _pair(
        "wan-demo-style",
        "Demo style: red and blue swapped",
        _DEMO,
        "diffbox/wan-demo",
        "style.safetensors",
        demo=True,
    ),
    _single(
        "qwen-2511-lightning-4",
        "Qwen Edit 2511 Lightning, 4 steps",
        ("qwen-image-edit-2511",),
        "lightx2v/Qwen-Image-Edit-2511-Lightning",
        _LIGHTNING_2511,
    ),
    *(
        _single(
            f"qwen-2509-lightning-{steps}",
            f"Qwen Edit 2509 Lightning, {steps} steps",
            ("qwen-image-edit-2509",),
            "lightx2v/Qwen-Image-Lightning",
            _LIGHTNING_2509.format(steps),
        )
        for steps in (4, 8)
    ),
    _single(
        "qwen-demo-lightning",
        "Demo Lightning",
        _QWEN_DEMO,
        "diffbox/qwen-demo",
        "lightning.safetensors",
        demo=True,
    ),
    _single(
        "qwen-demo-style",
        "Demo style: red and blue swapped",
        _QWEN_DEMO,
        "diffbox/qwen-demo",
        "style.safetensors",
        demo=True,
    ),
)


def _preset(id_: str, title: str, workflow: str, models: tuple[str, ...], **params: Any) -> Preset:
    return Preset(
        id=id_, title=title, workflow=workflow, models=models, params=MappingProxyType(params)
    )


def _both(name: str, *, high: float = 1.0) -> list[dict[str, Any]]:
    return [{"high": name, "low": name, "high_strength": high}]


_FAST: Final[dict[str, Any]] = {"cfg_scale": 1.0, "sigma_shift": 5.0, "switch_dit_boundary": 0.9}

PRESETS: Final[tuple[Preset, ...]] = (
    _preset(
        "i2v-lightning-4",
        "Lightning: 4 steps",
        "i2v",
        _A14B,
        lora=_both("wan2.2-lightning"),
        num_inference_steps=4,
        **_FAST,
    ),
    _preset(
        "i2v-lightning-8",
        "Lightning: 8 steps",
        "i2v",
        _A14B,
        lora=_both("wan2.2-lightning"),
        num_inference_steps=8,
        **_FAST,
    ),
    _preset(
        "i2v-demo-lightning",
        "Demo Lightning: 4 steps",
        "i2v",
        _DEMO,
        lora=_both("wan-demo-lightning"),
        num_inference_steps=4,
        **_FAST,
    ),
    # On the high expert at half strength: SVI's authors say that more takes motion away.
    _preset(
        "svi-lightning-6",
        "Lightning: 6 steps",
        "svi",
        ("wan2.2-i2v-a14b",),
        lora=_both("wan2.2-lightning", high=0.5),
        num_inference_steps=6,
        **_FAST,
    ),
    _preset(
        "svi-demo-lightning",
        "Demo Lightning: 4 steps",
        "svi",
        ("wan-demo",),
        lora=_both("wan-demo-lightning", high=0.5),
        num_inference_steps=4,
        **_FAST,
    ),
    *(
        _preset(
            f"qwen-{version}-lightning-{steps}",
            f"Lightning: {steps} steps ({version})",
            "qwen",
            (f"qwen-image-edit-{version}",),
            lora=[{"file": f"qwen-{version}-lightning-{steps}"}],
            num_inference_steps=steps,
            cfg_scale=1.0,
            schedule="lightning",
        )
        for version, steps in (("2511", 4), ("2509", 4), ("2509", 8))
    ),
    _preset(
        "qwen-demo-lightning",
        "Demo Lightning: 4 steps",
        "qwen",
        _QWEN_DEMO,
        lora=[{"file": "qwen-demo-lightning"}],
        num_inference_steps=4,
        cfg_scale=1.0,
        schedule="lightning",
    ),
)
