"""What was encoded is kept: the same bits, no forward of the encoder, and no more than allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.pipelines.caches import CachedUnit, Encoded, content_hash
from core.pipelines.qwen_image import QwenImage
from core.pipelines.wan_video import WanVideo
from tests.core.pipelines.demo_runs import Watched, arguments, picture
from tests.core.pipelines.qwen_runs import edited, spots


class Counted:
    """Makes tensors of `count` floats and counts how often."""

    def __init__(self, count: int = 10) -> None:
        self.calls = 0
        self._count = count

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        return torch.full((self._count,), float(self.calls))


def test_equal_inputs_are_encoded_once() -> None:
    cache, make = Encoded(), Counted()
    first = cache.remember({"prompt": "a", "image": picture()}, make, "cpu")
    again = cache.remember({"image": picture(), "prompt": "a"}, make, "cpu")
    assert torch.equal(first, again)
    assert make.calls == 1
    cache.remember({"prompt": "a", "image": picture(1)}, make, "cpu")
    assert make.calls == 2


def test_what_is_kept_can_not_be_changed_from_outside() -> None:
    cache, make = Encoded(), Counted()
    cache.remember("a", make, "cpu").zero_()
    cache.remember("a", make, "cpu").zero_()
    assert float(cache.remember("a", make, "cpu")[0]) == 1


def test_the_least_recently_used_goes_when_it_is_too_much() -> None:
    cache, make = Encoded(max_bytes=100), Counted(10)
    for key in ("a", "b", "a", "c"):  # 40 bytes each: two fit
        cache.remember(key, make, "cpu")
    assert (len(cache), make.calls) == (2, 3)
    cache.remember("a", make, "cpu")
    assert make.calls == 3
    cache.remember("b", make, "cpu")
    assert make.calls == 4


def test_what_is_too_large_alone_is_not_kept() -> None:
    cache, make = Encoded(max_bytes=10), Counted()
    cache.remember("a", make, "cpu")
    assert len(cache) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["a"], ["a", None]),
        ({"a": 1}, {"b": 1}),
        (1, "1"),
        (picture(), picture().rotate(90)),
        (Image.new("RGB", (2, 8)), Image.new("RGB", (8, 2))),
        ([["a"], "b"], [["a", "b"]]),
    ],
)
def test_other_content_has_another_hash(one: Any, other: Any) -> None:
    assert content_hash(one) != content_hash(other)


def test_what_has_no_content_is_refused() -> None:
    with pytest.raises(TypeError, match="Tensor has no content"):
        content_hash(torch.ones(1))


# --- in the pipelines -----------------------------------------------------------------------------


@contextmanager
def calls_of(module: torch.nn.Module) -> Iterator[Callable[[], int]]:
    count = []
    handle = module.register_forward_pre_hook(lambda *_: count.append(1))
    yield lambda: len(count)
    handle.remove()


@contextmanager
def uncached(pipe: Any) -> Iterator[None]:
    units = pipe.units
    pipe.units = [unit.stock if isinstance(unit, CachedUnit) else unit for unit in units]
    yield
    pipe.units = units


def test_a_prompt_and_picture_of_before_are_not_encoded_again(
    wan: WanVideo, watched: Watched
) -> None:
    given = arguments(prompt="never seen", input_image=picture(77))
    with uncached(wan._pipe):
        expected = wan.denoise(watched.run, **given)
    with calls_of(wan._pipe.text_encoder) as texts, calls_of(wan._pipe.vae.model.encoder) as vae:
        first = wan.denoise(watched.run, **given)
        before = texts(), vae()
        assert min(before) > 0
        again = wan.denoise(watched.run, **given)
        assert (texts(), vae()) == before
    assert torch.equal(first, expected)
    assert torch.equal(again, expected)


def test_another_prompt_size_or_picture_is_encoded(wan: WanVideo, watched: Watched) -> None:
    usual = wan.denoise(watched.run, **arguments())
    for change in ({"prompt": "another"}, {"input_image": picture(3)}):
        assert not torch.equal(wan.denoise(watched.run, **arguments(**change)), usual)
    assert wan.denoise(watched.run, **arguments(num_frames=13)).shape != usual.shape


def test_the_next_job_with_the_same_anchor_does_not_encode_it(
    wan: WanVideo, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: Any = arguments(input_image=picture(88))

    def clip() -> torch.Tensor:
        return wan.svi(watched.run, motion_slots=1, inputs=inputs).denoise(prompt="a", seed=1)

    first = clip()
    monkeypatch.setattr(wan._pipe.vae, "encode", None)
    assert torch.equal(clip(), first)


def test_an_edit_of_the_same_picture_asks_the_encoders_once(
    qwen: QwenImage, watched: Watched
) -> None:
    given: dict[str, Any] = {"prompt": "never seen", "edit_image": [spots(55)]}
    with uncached(qwen._pipe):
        expected = edited(qwen, watched.run, **given)
    with calls_of(qwen._pipe.text_encoder.model) as texts:
        first = edited(qwen, watched.run, **given)
        before = texts()
        again = edited(qwen, watched.run, **given)
        assert texts() == before > 0
    assert np.array_equal(first, expected)
    assert np.array_equal(again, expected)
    other = edited(qwen, watched.run, prompt="never seen", edit_image=[spots(56)])
    assert not np.array_equal(other, expected)
