"""Qwen Image Edit: one to three pictures and a prompt become one picture.

pictures ──fit──> encode ──> denoise ──> decode ──┬────────────────────────> png
mask ──fit──feather──────────────────────────────> blend over the first picture ──> png

Outside the mask and its soft edge the result is the first picture to the bit: the model's own
picture of it went through the VAE, so it is not used there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, cast

from PIL import Image

from core import catalog, media
from core.controlnets import ControlnetHint, ControlnetUse
from core.media.edges import canny
from core.media.images import rejected
from core.media.masks import blend, cells, feathered, fitted_mask
from core.protocol import Stage
from core.run import Run
from core.workflows.base import PipelineSpec, Workflow
from core.workflows.params import Params
from core.workflows.qwen_params import QwenParams
from core.workflows.qwen_sizes import auto_size, is_aligned, seen_size

if TYPE_CHECKING:
    from core.pipelines.qwen_image import QwenImage

_PICTURES: Final = "edit_images"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """The pictures of a job, ready for the pipeline.

    `base` is the first picture at the result's size, `seen` are all of them as the model looks at
    them, `mask` is what is to be made anew and `edge` the same with its soft edge, both L of the
    result's size.
    """

    base: Image.Image
    seen: list[Image.Image]
    mask: Image.Image | None
    edge: Image.Image | None


class Qwen(Workflow[QwenParams]):
    """Image editing with Qwen Image Edit."""

    id: ClassVar[str] = "qwen"
    title: ClassVar[str] = "Image edit"
    summary: ClassVar[str] = "One to three pictures and a prompt become a new picture."
    params: ClassVar[type[Params]] = QwenParams

    def run(self, params: QwenParams, run: Run) -> None:
        """Load, encode, denoise, decode, blend, save."""
        # 1. Pictures first: a bad picture or controlnet must not cost a model load.
        pictures = _pictures(params, run)
        hint = _hint(params, run, pictures)
        if not catalog.is_demo(params.model):  # whose files are made when they are loaded
            _controlnet(params, run)
        # 2. The pipeline, shared by all jobs with the same spec, and what stands beside it.
        spec = PipelineSpec(family="qwen_image", model=params.model)
        pipeline = cast("QwenImage", run.pipeline(spec, params.lora_parts()))
        use = _controlnet(params, run)
        pipeline.use_controlnet(use, run)
        if use is not None:
            run.provenance = {**run.provenance, "controlnet": use.provenance()}
        # 3. Encode, denoise, decode.
        run.enter(Stage.ENCODING)
        kept = pictures.mask is not None or params.denoising_strength < 1
        result = pipeline.edit(
            run,
            hint=hint,
            schedule=params.schedule,
            prompt=params.prompt,
            negative_prompt=params.negative_prompt,
            edit_image=pictures.seen,
            input_image=pictures.base if kept else None,
            inpaint_mask=pictures.edge and cells(pictures.edge),
            denoising_strength=params.denoising_strength,
            seed=cast("int", params.seed),
            width=pictures.base.width,
            height=pictures.base.height,
            num_inference_steps=params.num_inference_steps,
            cfg_scale=params.cfg_scale,
            exponential_shift_mu=params.exponential_shift_mu,
            zero_cond_t=catalog.model(params.model).settings["zero_cond_t"],
            tiled=params.tiled,
            tile_size=params.tile_size,
            tile_stride=params.tile_stride,
        )
        # 4. Put what was kept back, to the bit.
        if pictures.edge is not None:
            result = blend(pictures.base, result, pictures.edge)
        run.save_image(result)


def _pictures(params: QwenParams, run: Run) -> Pictures:
    """Read the pictures and bring them to size.

    Raises:
        InputRejected: one of them can't be used; names the parameter.
    """
    area = catalog.model(params.model).settings["area"]
    given = [run.picture(_PICTURES, ref) for ref in params.edit_images]
    first = given[0]
    mask = params.inpaint_mask and run.mask("inpaint_mask", params.inpaint_mask)
    try:
        size = _size(params, first, area)
        seen_sizes = [seen_size(picture.size, area) for picture in given]
    except ValueError as error:
        raise rejected(_PICTURES, str(error)) from None
    base = media.fitted(first, size, params.fit)
    fitting = None
    if mask:
        fitting = fitted_mask(mask, first, size, params.fit, field="inpaint_mask")
    # At the result's size nothing shifts: the model puts both pictures' centres on each other.
    follows = params.mode == "inpaint" or params.resolution == "auto"
    aligned = follows or is_aligned(first.size, size)
    seen = [
        base if aligned and index == 0 else picture.resize(wanted, Image.Resampling.LANCZOS)
        for index, (picture, wanted) in enumerate(zip(given, seen_sizes, strict=True))
    ]
    edge = fitting and feathered(fitting, params.feather)
    return Pictures(base=base, seen=seen, mask=fitting, edge=edge)


def _size(params: QwenParams, first: Image.Image, area: int) -> tuple[int, int]:
    """(width, height) of the result."""
    if params.width is None or params.height is None:
        return auto_size(first.size, area)
    return params.width, params.height


def _controlnet(params: QwenParams, run: Run) -> ControlnetUse | None:
    if params.controlnet == "none":
        return None
    return run.controlnet(params.controlnet, params.model)


def _hint(params: QwenParams, run: Run, pictures: Pictures) -> ControlnetHint | None:
    """What the controlnet is told: edges, a depth map, or the picture round the mask."""
    if params.controlnet == "none":
        return None
    image, size = pictures.base, pictures.base.size
    if params.controlnet_image:
        image = run.image("controlnet_image", params.controlnet_image, size=size, fit=params.fit)
    if params.controlnet == "canny":
        image = canny(image)
    mask = pictures.mask if params.controlnet == "inpaint" else None
    return ControlnetHint(
        image=image,
        # Whole latents, as the pipeline itself is given them: it takes one pixel of each.
        mask=mask and cells(mask).resize(size, Image.Resampling.NEAREST),
        scale=params.controlnet_scale,
        start=params.controlnet_start,
        end=params.controlnet_end,
    )
