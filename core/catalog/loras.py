"""The LoRAs that diffbox knows by name, and the presets that are made with them."""

from __future__ import annotations

from typing import Final

from core.catalog.refs import LoraRef, Preset

LORAS: Final[tuple[LoraRef, ...]] = ()
PRESETS: Final[tuple[Preset, ...]] = ()
