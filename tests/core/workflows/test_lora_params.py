"""LoRA as a parameter: objects and texts, and what is refused at which item."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import InvalidParams
from core.workflows import workflow

UPLOAD = "upload:" + "a" * 64
REQUIRED: dict[str, dict[str, Any]] = {
    "i2v": {"prompt": "a boat", "input_image": UPLOAD},
    "qwen": {"prompt": "a hat", "edit_images": [UPLOAD]},
}


def parts(workflow_id: str, *loras: Any) -> list[tuple[str, str, float]]:
    """(expert, name, strength) of each file."""
    params = workflow(workflow_id).parse({**REQUIRED[workflow_id], "lora": list(loras)})
    return [(part.expert, part.name, part.strength) for part in params.lora_parts()]


def refused(workflow_id: str, *loras: Any) -> str:
    with pytest.raises(InvalidParams) as caught:
        parts(workflow_id, *loras)
    (problem,) = caught.value.problems
    assert problem.field == "lora"
    assert len(problem.message) < 400
    return problem.message


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            {"high": "a.safetensors", "low": "b.safetensors", "high_strength": 0.8},
            [("high", "a.safetensors", 0.8), ("low", "b.safetensors", 1.0)],
        ),
        (
            "high=a.safetensors, low=b.safetensors,high_strength=0.8",
            [("high", "a.safetensors", 0.8), ("low", "b.safetensors", 1.0)],
        ),
        ("low=styles/a.safetensors,low_strength=-1", [("low", "styles/a.safetensors", -1.0)]),
        (
            "wan-demo-svi:0.5",
            [("high", "wan-demo-svi", 0.5), ("low", "wan-demo-svi", 0.5)],
        ),
        ({"high": "wan2.2-lightning"}, [("high", "wan2.2-lightning", 1.0)]),
    ],
)
def test_a_wan_lora_is_an_object_or_a_text(
    item: Any, expected: list[tuple[str, str, float]]
) -> None:
    assert parts("i2v", item) == expected


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"file": "a.safetensors", "strength": 2}, ("a.safetensors", 2.0)),
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.8", ("a.safetensors", 0.8)),
        ("file=a.safetensors,strength=0.8", ("a.safetensors", 0.8)),
        ("qwen-demo-style:-0.5", ("qwen-demo-style", -0.5)),
        ("odd:name.safetensors", ("odd:name.safetensors", 1.0)),
    ],
)
def test_a_qwen_lora_has_one_file(item: Any, expected: tuple[str, float]) -> None:
    assert parts("qwen", item) == [("transformer", *expected)]


def test_places_name_item_and_expert() -> None:
    params = workflow("i2v").parse(
        {**REQUIRED["i2v"], "lora": ["high=a.safetensors", "low=b.safetensors"]}
    )
    assert [part.place for part in params.lora_parts()] == ["lora[0].high", "lora[1].low"]


def test_stored_params_are_read_as_they_were() -> None:
    params = workflow("i2v").parse({**REQUIRED["i2v"], "lora": ["wan-demo-style:0.5"]})
    assert workflow("i2v").read(params.model_dump(mode="json")) == params


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("a.safetensors", "lora[1]: 'a.safetensors' does not say for which expert: use high="),
        ({}, "lora[1]: a LoRA needs a file"),
        ({"high": ""}, "lora[1]: a LoRA needs a file"),
        ({"hgih": "a.safetensors"}, "lora[1].hgih is not a parameter"),
        ("hgih=a.safetensors", "lora[1].hgih is not a parameter"),
        ("high=a.safetensors,high=b.safetensors", "high stands twice"),
        ("high=a.safetensors,b.safetensors", "'b.safetensors' in"),
        ({"high": "a.safetensors", "high_strength": 5}, "lora[1].high_strength=5: input should be"),
        ({"high": "a.safetensors", "low_strength": float("nan")}, "lora[1].low_strength=nan"),
        ("high=a.safetensors,high_strength=x", "lora[1].high_strength='x'"),
        ({"high": "a.ckpt"}, "lora[1].high: 'a.ckpt' is a pickle checkpoint"),
        ({"low": "a.PT"}, "lora[1].low: 'a.PT' is a pickle checkpoint"),
        ({"high": "a.gguf"}, "neither a .safetensors file nor one of"),
        ({"high": "wan2.2-lightnin"}, "did you mean 'wan2.2-lightning'?"),
        ({"high": "../a.safetensors"}, "leads elsewhere"),
        ({"high": "/etc/a.safetensors"}, "leads elsewhere"),
        ({"high": "a\\..\\b.safetensors"}, "leads elsewhere"),
        ({"high": "a\0.safetensors"}, "printable"),
        ({"high": "a" * 10_000 + ".safetensors"}, "printable"),
        ({"high": "qwen-demo-style"}, "lora[1].high: 'qwen-demo-style' is for qwen-demo"),
        (3, "lora[1]=3: input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_is_told_with_its_item(item: Any, said: str) -> None:
    assert said in refused("i2v", "wan-demo-style", item)


def test_a_wan_lora_is_not_for_qwen() -> None:
    assert "'wan-demo-style' is for wan-demo" in refused("qwen", "wan-demo-style")


def test_more_than_sixteen_are_refused() -> None:
    assert len(parts("i2v", *["high=a.safetensors"] * 16)) == 16
    assert "at most 16" in refused("i2v", *["high=a.safetensors"] * 17)
