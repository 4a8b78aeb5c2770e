"""QwenImage: the adapter between a recipe's run and DiffSynth's stock Qwen Image pipeline.

    use_controlnet = a controlnet beside the model, or none, without loading the model again
    edit           = pipe(...)                    ──> RGB picture of (width, height)

The stock `__call__` runs unchanged. Progress enters by `progress_bar_cmd` and by `vae.decode`;
cancel also by hooks on every block, since one step of the real model takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final, Literal, TypedDict, Unpack

import torch
from PIL import Image

from core.catalog import ModelRef
from core.controlnets import ControlnetHint, ControlnetUse
from core.pipelines.adapter import Adapter, StepWatch, replaced
from core.pipelines.device import peak_memory
from core.pipelines.loading import Loaded, out_of_memory
from core.pipelines.loading_qwen import load_controlnet
from core.pipelines.preview import LatentColours, measured_colours, wan21_colours
from core.pipelines.stock import FlowMatchScheduler
from core.pipelines.stock_qwen import (
    ControlNetInput,
    QwenImageUnit_EditImageEmbedder,
    QwenImageUnit_PromptEmbedder,
)
from core.protocol import Device, Stage
from core.run import Run

Schedule = Literal["regular", "lightning"]
_LIGHTNING: Final = "Qwen-Image-Lightning"


class EditInputs(TypedDict):
    """What `QwenImage.edit` takes.

    Attributes:
        prompt: tokens beyond 512 were not trained on.
        negative_prompt: has no effect when cfg_scale is 1.
        edit_image: pictures that the model looks at, in order, RGB, each as large as it shall
            see it: sides are multiples of 16.
        input_image: RGB of (width, height); what inpaint_mask and denoising_strength are about.
        inpaint_mask: L of (width / 8, height / 8), white where the picture is made anew, or None.
        denoising_strength: in (0, 1]; below 1 only with input_image.
        seed: of the noise, which is made on the CPU and so the same on every device.
        width: pixels, a multiple of 16.
        height: pixels, a multiple of 16.
        num_inference_steps: at least 2: a single step divides by zero.
        cfg_scale: 1 or more; 1 takes one forward a step instead of two.
        exponential_shift_mu: moves the steps towards noise; None for what suits the size.
        zero_cond_t: what the model's variant was trained with.
        tiled: encode and decode in tiles.
        tile_size: (height, width) in latent pixels.
        tile_stride: (height, width) in latent pixels, at most tile_size.
    """

    prompt: str
    negative_prompt: str
    edit_image: list[Image.Image]
    input_image: Image.Image | None
    inpaint_mask: Image.Image | None
    denoising_strength: float
    seed: int
    width: int
    height: int
    num_inference_steps: int
    cfg_scale: float
    exponential_shift_mu: float | None
    zero_cond_t: bool
    tiled: bool
    tile_size: tuple[int, int]
    tile_stride: tuple[int, int]


class QwenImage(Adapter):
    """A loaded QwenImagePipeline.

    Args:
        loaded: DiffSynth's pipeline, and how its weights are kept.
        colours: latents to preview colours.
        device: what it computes on.
        provenance: models and versions, for the metadata of outputs.
    """

    cached = (QwenImageUnit_PromptEmbedder, QwenImageUnit_EditImageEmbedder)

    def __init__(
        self,
        loaded: Loaded,
        *,
        colours: LatentColours,
        device: Device,
        provenance: dict[str, Any],
    ) -> None:
        super().__init__(loaded, colours=colours, device=device, provenance=provenance)
        self._bare = loaded.pipe.blockwise_controlnet
        self._controlnet: ControlnetUse | None = None

    def use_controlnet(self, use: ControlnetUse | None, run: Run) -> None:
        """Have this controlnet beside the model, or none; the same one is not loaded again.

        Raises:
            ModelMissing: the file holds something else.
            OutOfMemory: it does not fit.
        """
        if use != self._controlnet:
            self._drop_controlnet()
        if use is not None and self._controlnet is None:
            run.enter(Stage.LOADING, 1)
            loaded = Loaded(pipe=self._pipe, placement=self._placement)
            self._pipe.blockwise_controlnet = load_controlnet(loaded, use)
            self._controlnet = use
            run.step(1)

    def edit(
        self,
        run: Run,
        *,
        hint: ControlnetHint | None,
        schedule: Schedule,
        **given: Unpack[EditInputs],
    ) -> Image.Image:
        """Encode the inputs, remove the noise, decode; the run is in the stage ENCODING.

        Args:
            run: told of progress, asked for cancel.
            hint: what the controlnet in use is told; None leaves it out.
            schedule: the steps' noise levels; "lightning" only for LoRAs that were made for it.
            given: see EditInputs.

        Returns:
            RGB of (width, height).

        Raises:
            JobCancelled: at once, also within a step.
            OutOfMemory: the device has too little.
        """
        steps = StepWatch(run, self._colours, self._device)
        pipe = self._pipe
        with ExitStack() as hooks:
            hooks.enter_context(out_of_memory("making the picture"))
            hooks.enter_context(self._cancellable(run))
            if schedule == "lightning":
                hooks.enter_context(replaced(pipe, "scheduler", FlowMatchScheduler(_LIGHTNING)))
            hooks.enter_context(
                replaced(pipe.scheduler, "step", steps.watched(pipe.scheduler.step))
            )
            hooks.enter_context(replaced(pipe.vae, "decode", _Decoding(run, pipe.vae.decode)))
            picture: Image.Image = pipe(
                **given,
                # They come as large as the model shall see them: see core.workflows.qwen.
                edit_image_auto_resize=False,
                blockwise_controlnet_inputs=[_as_stock(hint)] if hint else None,
                progress_bar_cmd=steps.bar,
            )
        return picture

    def recover(self) -> None:
        """Bring everything to rest after an exception in the middle of a call."""
        peak_memory(self._device)  # what this run took is not the next one's peak
        self._pipe.load_models_to_device([])
        self._empty_caches()

    def release(self) -> None:
        """Drop the weights; the adapter can't be used after this."""
        self._bare = self._controlnet = None
        super().release()

    def _drop_controlnet(self) -> None:
        if self._controlnet is not None:
            self._pipe.blockwise_controlnet = self._bare
            self._controlnet = None
            self._empty_caches()

    def _blocks(self) -> Iterator[torch.nn.Module]:
        pipe = self._pipe
        encoder = pipe.text_encoder.model
        yield from pipe.dit.transformer_blocks
        yield from encoder.visual.blocks
        yield from encoder.language_model.layers
        yield from pipe.vae.encoder.down_blocks
        yield from pipe.vae.decoder.up_blocks


def colours(loaded: Loaded, row: ModelRef) -> LatentColours:
    """Latents to preview colours for a row's VAE."""
    if not row.demo:
        return wan21_colours()
    pipe = loaded.pipe

    def encode(picture: torch.Tensor) -> torch.Tensor:
        pipe.load_models_to_device(["vae"])
        latents: torch.Tensor = pipe.vae.encode(picture[None].to(pipe.device, pipe.torch_dtype))
        pipe.load_models_to_device([])
        return latents[0]

    return measured_colours(encode)


def _as_stock(hint: ControlnetHint) -> Any:
    """For DiffSynth, whose progress runs from 1 down to 0."""
    return ControlNetInput(
        scale=hint.scale,
        start=1 - hint.start,
        end=1 - hint.end,
        image=hint.image,
        # Unlike the pipeline's own mask this one must have three channels.
        inpaint_mask=hint.mask and hint.mask.convert("RGB"),
    )


class _Decoding:
    """Takes the place of `vae.decode`: the stage DECODING, of as many steps as there are tiles."""

    def __init__(self, run: Run, decode: Callable[..., torch.Tensor]) -> None:
        self._run = run
        self._decode = decode
        self._tiles = 0
        self._done = 0

    def __call__(self, x: torch.Tensor, tiled: bool = False, **options: Any) -> torch.Tensor:
        """Decode latents (1, 16, h, w); for a tile the stock code calls this again."""
        if tiled:
            sides = zip(x.shape[-2:], options["tile_size"], options["tile_stride"], strict=True)
            rows, columns = (_starts(*side) for side in sides)
            self._tiles = rows * columns
        if tiled or not self._tiles:
            self._run.enter(Stage.DECODING, self._tiles)
            return self._decode(x, tiled=tiled, **options)
        pixels = self._decode(x)
        self._done += 1
        self._run.step(self._done)
        return pixels


def _starts(length: int, size: int, stride: int) -> int:
    """How many tiles there are along a side, as QwenImageVAE.tiled_forward lays them."""
    return sum(
        start - stride < 0 or start - stride + size < length for start in range(0, length, stride)
    )
