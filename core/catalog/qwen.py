"""The Qwen Image Edit models and their controlnets."""

from __future__ import annotations

from typing import Final

from core.catalog.refs import ControlnetRef, ModelRef

QWEN_MODELS: Final[tuple[ModelRef, ...]] = ()
CONTROLNETS: Final[tuple[ControlnetRef, ...]] = ()
