"""The text encoder under this transformers: pictures have rows and columns, frequencies are exact.

Seen red: without `as_trained` transformers 5.23 numbers a picture's tokens as if they were text.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.pipelines import demo_qwen, qwen_text
from core.pipelines.qwen_image import QwenImage
from core.pipelines.stock_qwen import ModelPool
from tests.core.pipelines.qwen_runs import spots

WRAPPED = "diffsynth.models.qwen_image_text_encoder.QwenImageTextEncoder"


def positions_of(encoder: Any, processor: Any, tokens_before: str) -> torch.Tensor:
    """(3, tokens) positions: time, row, column."""
    seen: list[torch.Tensor] = []

    def note(_: Any, args: Any, given: dict[str, Any]) -> None:
        seen.append(given["position_ids"])

    handle = encoder.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    text = f"{tokens_before}<|vision_start|><|image_pad|><|vision_end|>z"
    given = processor(text=[text], images=[spots(size=(84, 56))], return_tensors="pt")
    with torch.no_grad():
        encoder(
            input_ids=given.input_ids,
            attention_mask=given.attention_mask,
            pixel_values=given.pixel_values,
            image_grid_thw=given.image_grid_thw,
        )
    handle.remove()
    return seen[0][-3:, 0]


def test_tokens_of_a_picture_are_placed_by_row_and_column(qwen: QwenImage) -> None:
    pipe = qwen._pipe
    time, row, column = positions_of(pipe.text_encoder, pipe.processor, "ab").tolist()
    # a, b, start; 2 x 3 tokens of the picture; end and z go on after the longer side.
    assert time == [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7]
    assert row == [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7]
    assert column == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7]


def test_without_pictures_nothing_is_added(qwen: QwenImage) -> None:
    pipe = qwen._pipe
    given = pipe.tokenizer(["abc"], return_tensors="pt")
    states = pipe.text_encoder(input_ids=given.input_ids, attention_mask=given.attention_mask)
    assert states[-1].shape == (1, 3, demo_qwen.TEXT_DIM)


def test_frequencies_stay_exact_in_bfloat16() -> None:
    encoder = demo_qwen.DemoQwenTextEncoder()
    rotary = [m for m in encoder.modules() if type(m).__name__.endswith("RotaryEmbedding")]
    exact = [module.inv_freq.clone() for module in rotary]
    encoder.to(torch.bfloat16)
    assert any(not torch.equal(m.inv_freq.float(), e) for m, e in zip(rotary, exact, strict=True))
    qwen_text.as_trained(encoder)
    assert len(rotary) == 2
    for module, wanted in zip(rotary, exact, strict=True):
        assert module.inv_freq.dtype is torch.float32
        assert torch.equal(module.inv_freq, wanted)


@pytest.mark.usefixtures("qwen")
def test_the_real_encoder_can_be_wrapped_for_offloading() -> None:
    offload = {"offload_dtype": torch.bfloat16, "offload_device": "cpu"}
    wrapped = ModelPool().fetch_module_map(WRAPPED, offload)
    names = {source.__name__ for source in wrapped}
    assert {"Linear", "Embedding", "Qwen2_5_VLRMSNorm", "Qwen2_5_VisionPatchEmbed"} <= names
    assert not any(name.endswith("RotaryEmbedding") for name in names)
