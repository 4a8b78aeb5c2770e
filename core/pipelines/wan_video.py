"""WanVideo: the adapter between a recipe's run and DiffSynth's stock Wan pipeline.

    denoise = pipe(...) with vae.decode replaced   ──> latents (1, 16, T, h, w)
    decode  = the stock decoder, frame by frame    ──> uint8 frames (H, W, 3)

The stock `__call__` runs unchanged. Progress enters by `progress_bar_cmd` and the VAE module's
`tqdm`; cancel also by hooks on every block, since one step of the real model takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Unpack

import torch
from PIL import Image

from core.pipelines.adapter import Adapter, StepWatch, replaced
from core.pipelines.decoding import Frame, decode_stream, decode_tiled
from core.pipelines.loading import out_of_memory
from core.pipelines.step_cache import cached_steps
from core.pipelines.stock import (
    WanVideoUnit_ImageEmbedderVAE,
    WanVideoUnit_PromptEmbedder,
    wan_video_vae,
)
from core.pipelines.svi_video import SviClips
from core.pipelines.wan_variants import VariantInputs, stock_arguments
from core.protocol import Stage
from core.run import Run


class DenoiseInputs(VariantInputs):
    """What `WanVideo.denoise` takes.

    Attributes:
        prompt: at most 512 tokens are read.
        negative_prompt: has no effect when cfg_scale is 1.
        input_image: the first frame, RGB; None for text-to-video models, which take none.
        end_image: the last frame, RGB, or None.
        input_video: num_frames pictures of exactly (width, height), or None.
        denoising_strength: in (0, 1]; below 1 only with input_video.
        seed: of the noise, which is made on the CPU and so the same on every device.
        width: pixels, a multiple of 16.
        height: pixels, a multiple of 16.
        num_frames: 4n + 1.
        num_inference_steps: at least 1.
        cfg_scale: 1 or more; 1 takes one forward a step instead of two.
        sigma_shift: moves the steps towards noise.
        switch_dit_boundary: noise level in [0, 1] below which the low expert takes over.
        tiled: encode the inputs in tiles.
        tile_size: (height, width) in latent pixels.
        tile_stride: (height, width) in latent pixels, smaller than tile_size.
    """

    prompt: str
    negative_prompt: str
    input_image: Image.Image | None
    end_image: Image.Image | None
    input_video: list[Image.Image] | None
    denoising_strength: float
    seed: int
    width: int
    height: int
    num_frames: int
    num_inference_steps: int
    cfg_scale: float
    sigma_shift: float
    switch_dit_boundary: float
    tiled: bool
    tile_size: tuple[int, int]
    tile_stride: tuple[int, int]


class WanVideo(Adapter):
    """A loaded WanVideoPipeline."""

    cached = (WanVideoUnit_PromptEmbedder, WanVideoUnit_ImageEmbedderVAE)

    def denoise(self, run: Run, **given: Unpack[DenoiseInputs]) -> torch.Tensor:
        """Encode the inputs and remove the noise; the run is in the stage ENCODING.

        Returns:
            (1, 16, (num_frames - 1) / 4 + 1, height / 8, width / 8) in the pipeline's dtype.

        Raises:
            JobCancelled: at once, also within a step.
            OutOfMemory: the device has too little.
        """
        steps = StepWatch(run, self._colours, self._device)
        pipe = self._pipe
        arguments = stock_arguments(pipe, given)
        with ExitStack() as hooks:
            hooks.enter_context(out_of_memory("making the video"))
            hooks.enter_context(self._cancellable(run))
            hooks.enter_context(_vae_progress(run, Stage.ENCODING))
            hooks.enter_context(replaced(pipe.vae, "decode", _latents_as_they_are))
            hooks.enter_context(
                replaced(pipe.scheduler, "step", steps.watched(pipe.scheduler.step))
            )
            hooks.enter_context(cached_steps(pipe, run, given.get("step_cache", 0.0)))
            latents: torch.Tensor = pipe(
                **arguments, progress_bar_cmd=steps.bar, output_type="floatpoint"
            )
        return latents

    def decode(
        self,
        run: Run,
        latents: torch.Tensor,
        *,
        tiled: bool,
        tile_size: tuple[int, int],
        tile_stride: tuple[int, int],
    ) -> Iterator[Frame]:
        """Frames (H, W, 3), uint8, RGB, as they come.

        Args:
            run: told of progress, asked for cancel.
            latents: as `denoise` returns them.
            tiled: with less memory; then the first frame comes after the last tile.
            tile_size: (height, width) in latent pixels.
            tile_stride: (height, width) in latent pixels.

        Raises:
            JobCancelled: between modules of the decoder.
            OutOfMemory: the device has too little.
        """
        pipe, device = self._pipe, self._device.kind
        with ExitStack() as hooks:
            hooks.enter_context(out_of_memory("decoding the video"))
            hooks.enter_context(self._cancellable(run))
            pipe.load_models_to_device(["vae"])
            hooks.callback(pipe.load_models_to_device, [])
            if tiled:
                hooks.enter_context(_vae_progress(run, Stage.DECODING))
                chunks = decode_tiled(
                    pipe.vae, latents, device, tile_size=tile_size, tile_stride=tile_stride
                )
            else:
                stream = decode_stream(pipe.vae, latents, device)
                chunks = run.steps(Stage.DECODING, stream, latents.shape[2])
            for frames in chunks:
                yield from frames

    def svi(self, run: Run, *, motion_slots: int, inputs: DenoiseInputs) -> SviClips:
        """What makes one clip after another with this pipeline."""
        return SviClips(self, run, motion_slots=motion_slots, inputs=inputs)

    @contextmanager
    def units(self) -> Iterator[tuple[list[Any], list[Any]]]:
        """The pipeline's units and post-units, to be changed as long as it lasts."""
        pipe = self._pipe
        units, post_units = list(pipe.units), list(pipe.post_units)
        with replaced(pipe, "units", units), replaced(pipe, "post_units", post_units):
            yield units, post_units

    def _blocks(self) -> Iterator[torch.nn.Module]:
        pipe = self._pipe
        for model in (pipe.dit, pipe.dit2, pipe.text_encoder):
            if model is not None:
                yield from model.blocks
        if pipe.image_encoder is not None:
            yield from pipe.image_encoder.model.visual.transformer
        for part in (pipe.vae.model.encoder.downsamples, pipe.vae.model.decoder.upsamples):
            yield from part


def _latents_as_they_are(latents: torch.Tensor, **_: Any) -> torch.Tensor:
    return latents


@contextmanager
def _vae_progress(run: Run, stage: Stage) -> Iterator[None]:
    """While it lasts, tiles of the VAE are steps of `stage`."""

    def bar(tiles: list[Any], **_: Any) -> Iterable[Any]:
        return run.steps(stage, tiles, len(tiles))

    stock = wan_video_vae.tqdm
    wan_video_vae.tqdm = bar
    try:
        yield
    finally:
        wan_video_vae.tqdm = stock
