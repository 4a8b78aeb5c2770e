"""DemoVAE: WanVideoVAE at small width. DiffSynth's loader imports it by its dotted name."""

from __future__ import annotations

from typing import Final

import torch

from core.pipelines.stock import wan_video_vae

DIM: Final = 16
Z_DIM: Final = 16


class DemoVAE(wan_video_vae.WanVideoVAE):  # type: ignore[misc]  # diffsynth is untyped
    """The stock encoder, decoder, tiling and compression (8, 8, 4), 16 to 32 channels wide."""

    def __init__(self) -> None:
        # Not WanVideoVAE's: it would build the full-size model first. As WanVideoVAE38 does.
        torch.nn.Module.__init__(self)
        self.mean = torch.zeros(Z_DIM)
        self.std = torch.ones(Z_DIM)
        self.scale = [self.mean, 1.0 / self.std]
        model = wan_video_vae.VideoVAE_(
            dim=DIM, z_dim=Z_DIM, dim_mult=[1, 2, 2, 2], num_res_blocks=1
        )
        self.model = model.eval().requires_grad_(False)
        self.upsampling_factor = 8
        self.z_dim = Z_DIM
