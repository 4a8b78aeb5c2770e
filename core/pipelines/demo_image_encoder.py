"""DemoImageEncoder: Wan 2.1's CLIP at small width. DiffSynth's loader imports it by dotted name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Final

import torch

from core.pipelines.stock import wan_video_image_encoder as stock

SIDE: Final = 224
DIM: Final = 64
LAYERS: Final = 3
"""The stock encoder leaves the last one out."""
WAN_DIM: Final = 1280
"""What every Wan 2.1 model takes a token of the picture to be."""
_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_STD: Final = (0.26862954, 0.26130258, 0.27577711)


class DemoVision(stock.VisionTransformer):  # type: ignore[misc]  # diffsynth is untyped
    """The stock transformer on 14 x 14 patches of 224 x 224 pixels, widened at its end."""

    def __init__(self) -> None:
        super().__init__(
            image_size=SIDE, patch_size=14, dim=DIM, out_dim=DIM, num_heads=2, num_layers=LAYERS
        )
        self.widen = torch.nn.Linear(DIM, WAN_DIM)

    def forward(self, x: torch.Tensor, use_31_block: bool = False) -> torch.Tensor:
        """(B, 257, 1280) for pictures (B, 3, 224, 224)."""
        tokens: torch.Tensor = self.widen(super().forward(x, use_31_block=use_31_block))
        return tokens


class _Clip(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image_size = SIDE
        self.visual = DemoVision()


class DemoImageEncoder(stock.WanImageEncoder):  # type: ignore[misc]  # diffsynth is untyped
    """The stock wrapper; only the picture's half of CLIP, as the real one uses no other."""

    def __init__(self) -> None:
        # Not WanImageEncoder's: it would build the full-size model first.
        torch.nn.Module.__init__(self)
        self.model = _Clip()
        self.transforms = SimpleNamespace(transforms=[_normalised])


def _normalised(pictures: torch.Tensor) -> torch.Tensor:
    """As torchvision's Normalize with CLIP's numbers; (B, 3, H, W) in [0, 1]."""
    mean, std = (pictures.new_tensor(numbers).view(1, 3, 1, 1) for numbers in (_MEAN, _STD))
    return (pictures - mean) / std
