"""Attention: chosen by setting, over what DiffSynth would take by itself."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from core.errors import ConfigError
from core.pipelines.attention import choose, name_of

FLAGS = {"3": "FLASH_ATTN_3_AVAILABLE", "2": "FLASH_ATTN_2_AVAILABLE", "s": "SAGE_ATTN_AVAILABLE"}


def model(installed: str) -> ModuleType:
    module = ModuleType("diffsynth.models.some_dit")
    for key, flag in FLAGS.items():
        setattr(module, flag, key in installed)
    return module


@pytest.mark.parametrize(
    ("installed", "setting", "expected"),
    [
        ("32s", "auto", "flash_attention_3"),
        ("2s", "auto", "flash_attention_2"),
        ("s", "auto", "torch_sdpa"),
        ("", "auto", "torch_sdpa"),
        ("32s", "sdpa", "torch_sdpa"),
        ("32s", "sage", "sage_attention"),
        ("2s", "flash", "flash_attention_2"),
    ],
)
def test_the_setting_and_what_is_installed_decide(
    installed: str, setting: Any, expected: str
) -> None:
    module = model(installed)
    choose(setting, module)
    assert name_of(module) == expected


@pytest.mark.parametrize(("installed", "setting"), [("s", "flash"), ("32", "sage"), ("", "sage")])
def test_what_is_not_installed_is_refused_by_name(installed: str, setting: Any) -> None:
    with pytest.raises(ConfigError, match=f"DIFFBOX_ATTENTION={setting}: some_dit"):
        choose(setting, model(installed))


def test_a_model_that_knows_one_flag_gets_no_others() -> None:
    module = ModuleType("diffsynth.models.other_dit")
    module.FLASH_ATTN_3_AVAILABLE = True  # type: ignore[attr-defined]
    choose("sdpa", module)
    assert (name_of(module), hasattr(module, "SAGE_ATTN_AVAILABLE")) == ("torch_sdpa", False)
