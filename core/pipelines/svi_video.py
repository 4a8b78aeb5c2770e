"""SVI 2.0 Pro on the stock Wan pipeline: one unit replaced, one post-unit added.

    anchor picture ──VAE, once──> A (16, 1, h, w)
    clip 0   y = [mask | A, zeros......]                          ──denoise──> x0 ──decode──> frames
    clip i   y = [mask | A, last M latents of x(i-1), zeros...]   ──denoise──> xi ──decode──> frames

The mask is 1 at slot 0 only. The motion latents are never decoded and encoded again; "zeros" are
zero latents, not an encoded grey. Source: Stable-Video-Infinity, branch svi_wan22, commit 1cbaf7b,
wan_video_svi_pro.py, lines 467 to 532; reference/diffsynth section A.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from safetensors.torch import load_file, save_file

from core.pipelines.decoding import Frame
from core.pipelines.stock import PipelineUnit, image_embedder_index
from core.run import Run

if TYPE_CHECKING:
    from core.pipelines.wan_video import DenoiseInputs, WanVideo

KEPT_SLOTS: Final = 3
"""Latent frames that are stored with a clip: enough for every overlap that a branch may choose."""


class SviClips:
    """The clips of one job on a loaded pipeline, one after the other.

    Args:
        wan: the pipeline, shared with plain image-to-video.
        run: the job's.
        motion_slots: M, latent frames that a clip starts from; 1 is what SVI is trained for.
        inputs: as `WanVideo.denoise` takes them; prompt and seed are replaced for each clip.
    """

    def __init__(
        self, wan: WanVideo, run: Run, *, motion_slots: int, inputs: DenoiseInputs
    ) -> None:
        self._wan = wan
        self._run = run
        self._slots = motion_slots
        self._inputs = inputs
        self._anchor: torch.Tensor | None = None
        self._motion: torch.Tensor | None = None

    def restore(self, path: Path) -> None:
        """Go on after the clip whose latents are stored at `path`."""
        state = load_file(path)
        self._anchor, self._motion = state["anchor"], state["motion"]

    def store(self, path: Path) -> None:
        """Write what the next clip starts from: anchor (16, 1, h, w) and last latents."""
        assert self._anchor is not None
        assert self._motion is not None
        save_file({"anchor": self._anchor, "motion": self._motion}, path)

    def denoise(self, *, prompt: str, seed: int) -> torch.Tensor:
        """The latents of the next clip, (1, 16, T, h, w).

        Raises:
            JobCancelled: at once, also within a step.
            OutOfMemory: the device has too little.
        """
        inputs = cast("dict[str, Any]", {**self._inputs, "prompt": prompt, "seed": seed})
        with self._conditioned():
            return self._wan.denoise(self._run, **inputs)

    def decode(self, latents: torch.Tensor) -> Iterator[Frame]:
        """All frames of a clip, those that overlap with the clip before too."""
        return self._wan.decode(
            self._run,
            latents,
            tiled=self._inputs["tiled"],
            tile_size=self._inputs["tile_size"],
            tile_stride=self._inputs["tile_stride"],
        )

    @contextmanager
    def _conditioned(self) -> Iterator[None]:
        """While it lasts, the pipeline is SVI's; after it, plain image-to-video again."""
        with self._wan.units() as (units, post_units):
            index = image_embedder_index(units)
            units[index] = _Conditioning(self, units[index])
            post_units.append(_KeepMotion(self))
            yield

    def conditioning(self, pipe: Any, anchor: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Lay out what conditions the next clip: mask, anchor, motion, zeros.

        Args:
            pipe: gives dtype and device.
            anchor: (16, 1, h, w) latent of the anchor picture.
            num_frames: frames of the clip in pixels, 4k + 1.

        Returns:
            (1, 20, k + 1, h, w): 4 mask channels, then 16 latent ones.
        """
        channels, _, height, width = anchor.shape
        given = {"device": pipe.device, "dtype": pipe.torch_dtype}
        latents = torch.zeros((channels, (num_frames - 1) // 4 + 1, height, width), **given)
        latents[:, :1] = anchor.to(**given)
        if self._motion is not None:
            latents[:, 1 : 1 + self._slots] = self._motion[:, -self._slots :].to(**given)
        mask = torch.zeros((4, *latents.shape[1:]), **given)
        mask[:, 0] = 1
        return torch.cat([mask, latents]).unsqueeze(0)

    def anchor(self, encode: Any) -> torch.Tensor:
        """The anchor's latent; `encode` is called for the first clip of a job only."""
        if self._anchor is None:
            self._anchor = encode().cpu()
        return self._anchor

    def keep(self, latents: torch.Tensor) -> None:
        """Note the last latent frames of a clip, (1, 16, T, h, w), as they are."""
        self._motion = latents[0, :, -KEPT_SLOTS:].detach().to("cpu").clone()


class _Conditioning(PipelineUnit):  # type: ignore[misc]  # diffsynth is untyped
    """Takes the place of WanVideoUnit_ImageEmbedderVAE: same inputs, same output."""

    def __init__(self, clips: SviClips, stock: Any) -> None:
        super().__init__(
            input_params=stock.input_params,
            output_params=("y",),
            onload_model_names=("vae",),
        )
        self._clips = clips
        self._encoded = stock.encoded

    def process(self, pipe: Any, **inputs: Any) -> dict[str, torch.Tensor]:
        """What conditions the clip, as `y`."""

        def encode() -> torch.Tensor:
            pipe.load_models_to_device(self.onload_model_names)
            size = (inputs["width"], inputs["height"])
            picture = pipe.preprocess_image(inputs["input_image"].resize(size)).transpose(0, 1)
            tiles = {name: inputs[name] for name in ("tiled", "tile_size", "tile_stride")}
            latent: torch.Tensor = pipe.vae.encode([picture], device=pipe.device, **tiles)[0]
            return latent.to(pipe.torch_dtype)

        asked = {"anchor": True, **inputs, "num_frames": 1}
        anchor = self._clips.anchor(lambda: self._encoded.remember(asked, encode, pipe.device))
        return {"y": self._clips.conditioning(pipe, anchor, inputs["num_frames"])}


class _KeepMotion(PipelineUnit):  # type: ignore[misc]  # diffsynth is untyped
    """Runs between the last step and decoding: the latents are as the sampler left them."""

    def __init__(self, clips: SviClips) -> None:
        super().__init__(input_params=("latents",), output_params=())
        self._clips = clips

    def process(self, pipe: Any, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        """Keep the last latents for the next clip."""
        self._clips.keep(latents)
        return {}
