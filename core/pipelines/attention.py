"""Which attention the models compute with: DIFFBOX_ATTENTION, over what DiffSynth would take.

DiffSynth's models look at flags of their own modules, in the order flash 3, flash 2, sage, torch.
"auto" is that order without sage: with it, clips of SVI 2.0 Pro flash at their seams
(reference/diffsynth section A.4), so it has to be asked for.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

from core.config import Attention
from core.errors import ConfigError

_FLAGS: Final[dict[Attention, tuple[str, ...]]] = {
    "auto": ("FLASH_ATTN_3_AVAILABLE", "FLASH_ATTN_2_AVAILABLE"),
    "flash": ("FLASH_ATTN_3_AVAILABLE", "FLASH_ATTN_2_AVAILABLE"),
    "sage": ("SAGE_ATTN_AVAILABLE",),
    "sdpa": (),
}
_NAMES: Final = {
    "FLASH_ATTN_3_AVAILABLE": "flash_attention_3",
    "FLASH_ATTN_2_AVAILABLE": "flash_attention_2",
    "SAGE_ATTN_AVAILABLE": "sage_attention",
}
_PACKAGES: Final = {"flash": "flash-attn", "sage": "sageattention"}


def choose(wanted: Attention, model: ModuleType) -> None:
    """Have a model's module take this attention from now on.

    Args:
        wanted: the setting.
        model: DiffSynth's module of the model, which has the flags.

    Raises:
        ConfigError: it was asked for by name and is not installed.
    """
    able = [flag for flag in _NAMES if getattr(model, flag, False)]
    allowed = [flag for flag in able if flag in _FLAGS[wanted]]
    if wanted in _PACKAGES and not allowed:
        found = ", ".join(_NAMES[flag] for flag in able) or "nothing beside torch's own"
        raise ConfigError(
            f"DIFFBOX_ATTENTION={wanted}: {model.__name__.rpartition('.')[2]} can't compute with "
            f"it here (found: {found}); install {_PACKAGES[wanted]}, or use auto or sdpa"
        )
    for flag in _NAMES:
        if hasattr(model, flag):
            setattr(model, flag, flag in allowed)


def name_of(model: ModuleType) -> str:
    """What the model computes with now."""
    flags = (flag for flag in _NAMES if getattr(model, flag, False))
    return next((_NAMES[flag] for flag in flags), "torch_sdpa")
