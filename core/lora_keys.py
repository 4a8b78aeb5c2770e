"""How LoRA files name their tensors: every common spelling, brought to the base model's modules.

    diffusion_model.blocks.0.self_attn.q.lora_A.default.weight   ┐
    base_model.model.blocks.0.self_attn.q.lora_B.weight          │
    transformer.blocks.0.attn1.to_q.lora_A.weight                ├──> blocks.0.self_attn.q
    lora_unet_blocks_0_self_attn_q.lora_down.weight, .alpha      ┘

Only names and shapes are looked at; no tensor is read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from core.catalog import Family

Shape = tuple[int, ...]
Kind = Literal["LoRA", "LoKr", "LoHa", "DoRA", "OFT"]

# Longest first; one file has one of them, sometimes two in a row.
_PREFIXES: Final = (
    "model.diffusion_model.",
    "base_model.model.",
    "diffusion_model.",
    "transformer.",
    "model.",
    "lora_transformer_",
    "lora_unet_",
    "lycoris_",
)
_SIDE: Final = re.compile(
    r"(?:\.lora_(?P<peft>A|B)(?:\.[\w-]+)?(?:\.weight)?"
    r"|\.lora_(?P<kohya>down|up)(?:\.[\w-]+)?\.weight"
    r"|[._]lora\.(?P<old>down|up)\.weight)$"
)
_OTHER_KINDS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    ("LoKr", re.compile(r"\.lokr_w[12]")),
    ("LoHa", re.compile(r"\.hada_w[12]")),
    ("DoRA", re.compile(r"\.(dora_scale|lora_magnitude_vector)")),
    ("OFT", re.compile(r"\.(b?oft_blocks|oft_diag|oft_r)\b")),
)
# What diffusers calls the parts of a Wan block.
_DIFFUSERS_WAN: Final = (
    ("self_attn.o", "attn1.to_out.0"),
    ("cross_attn.o", "attn2.to_out.0"),
    ("cross_attn.k_img", "attn2.add_k_proj"),
    ("cross_attn.v_img", "attn2.add_v_proj"),
    *((f"self_attn.{part}", f"attn1.to_{part}") for part in "qkv"),
    *((f"cross_attn.{part}", f"attn2.to_{part}") for part in "qkv"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("head.head", "proj_out"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The tensors of one module: names in the file, and shapes (rank, in) and (out, rank).

    `scale` is for files that tell alpha in their metadata; where there is an `alpha` tensor, the
    scale is alpha / rank instead.
    """

    down: str
    up: str
    alpha: str | None
    down_shape: Shape
    up_shape: Shape
    scale: float

    @property
    def rank(self) -> int:
        """Rows of the down matrix."""
        return self.down_shape[0] if self.down_shape else 0

    def fits(self, linear: Shape) -> bool:
        """Whether it can be added to a Linear with weights of this shape (out, in)."""
        ranks = self.down_shape[:1] == self.up_shape[1:] != (0,)
        whole = len(self.down_shape) == len(self.up_shape) == 2
        return whole and ranks and (*self.up_shape[:1], *self.down_shape[1:]) == linear


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """A file's tensors by what they belong to.

    `pairs` are by module, in the file's spelling; `halves` are modules with only one of the two
    matrices; `others` are tensors that are no part of a LoRA (biases, norms, text encoders …).
    """

    kind: Kind
    pairs: Mapping[str, Pair]
    halves: tuple[str, ...]
    others: tuple[str, ...]


def parse_keys(shapes: Mapping[str, Shape], metadata: Mapping[str, str]) -> Keys:
    """Sort a file's tensor names."""
    sides: dict[str, dict[str, str]] = {}
    others: list[str] = []
    for key in shapes:
        if found := _SIDE.search(key):
            side = found["peft"] or found["kohya"] or found["old"]
            name = "down" if side in {"A", "down"} else "up"
            sides.setdefault(key[: found.start()], {})[name] = key
        else:
            others.append(key)
    alphas = {f"{module}.alpha": module for module in sides}
    scale = _peft_scale(metadata)
    pairs = {
        module: Pair(
            down=keys["down"],
            up=keys["up"],
            alpha=f"{module}.alpha" if f"{module}.alpha" in shapes else None,
            down_shape=shapes[keys["down"]],
            up_shape=shapes[keys["up"]],
            scale=scale.of(module, shapes[keys["down"]]),
        )
        for module, keys in sides.items()
        if len(keys) == 2
    }
    kinds = [kind for kind, mark in _OTHER_KINDS if any(mark.search(key) for key in others)]
    return Keys(
        kind=kinds[0] if kinds else "LoRA",
        pairs=pairs,
        halves=tuple(module for module, keys in sides.items() if len(keys) == 1),
        others=tuple(key for key in others if key not in alphas),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _PeftScale:
    """What PEFT says about the scale: none where the file says nothing."""

    alpha: float | None = None
    patterns: Mapping[str, float]
    rank_stabilised: bool = False

    def of(self, module: str, down: Shape) -> float:
        named = [a for name, a in self.patterns.items() if module.endswith(name)]
        alpha = named[0] if named else self.alpha
        if alpha is None or not down or not down[0]:
            return 1.0
        return alpha / (down[0] ** 0.5 if self.rank_stabilised else down[0])


def _peft_scale(metadata: Mapping[str, str]) -> _PeftScale:
    """From what diffusers writes beside PEFT's tensors, `lora_adapter_metadata`."""
    try:
        told = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        # Each name stands behind its component: "transformer.lora_alpha".
        settings = {str(name).rpartition(".")[2]: value for name, value in told.items()}
        patterns = settings.get("alpha_pattern") or {}
        alpha = settings.get("lora_alpha")
        return _PeftScale(
            alpha=None if alpha is None else float(alpha),
            patterns={str(name): float(value) for name, value in patterns.items()},
            rank_stabilised=bool(settings.get("use_rslora")),
        )
    except (ValueError, TypeError, AttributeError):
        return _PeftScale(patterns={})


def spellings(modules: Mapping[str, Shape], family: Family) -> dict[str, str]:
    """Every way in which files spell a base model's modules, without prefixes: module."""
    known: dict[str, str] = {}
    for module in modules:
        names = [module]
        if family == "wan_video":
            names += [_diffusers_wan(module)]
        for name in names:
            known.setdefault(name, module)
            known.setdefault(name.replace(".", "_"), module)
    return known


def _diffusers_wan(module: str) -> str:
    block = re.match(r"blocks\.\d+\.", module)
    head, rest = (block[0], module[block.end() :]) if block else ("", module)
    return head + dict(_DIFFUSERS_WAN).get(rest, rest)


def base_name(spelled: str, known: Mapping[str, str]) -> str | None:
    """The base's module behind a file's spelling; None when the base has none such."""
    for name in _stripped(spelled):
        if name in known:
            return known[name]
    return None


def _stripped(spelled: str) -> tuple[str, ...]:
    """The name, and what is left when its prefixes are taken off one after the other."""
    names = [spelled]
    while prefix := next((p for p in _PREFIXES if names[-1].startswith(p)), None):
        names.append(names[-1][len(prefix) :])
    return tuple(names)


# --- what a file seems to be for -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """What a LoRA seems to be made for; `family` is None for models that diffbox does not run."""

    title: str
    family: Family | None = None
    known: bool = True


Widths = Mapping[str, int]
"""How wide the inputs of modules are, by name with underscores and without prefixes."""

_UNET_SIZES: Final = {2048: "SDXL", 1024: "Stable Diffusion 2", 768: "Stable Diffusion 1.5"}
_WAN_SIZES: Final = {1536: "Wan 2.1 1.3B", 3072: "Wan 2.2 5B", 5120: "Wan 14B (2.1 or 2.2)"}
_QWEN_WIDTH: Final = 3072


def recognise(pairs: Mapping[str, Pair]) -> Guess:
    """What the file seems to be for, from its names and widths."""
    widths = {
        _stripped(module)[-1].replace(".", "_"): pair.down_shape[1]
        for module, pair in pairs.items()
        if len(pair.down_shape) >= 2
    }
    names = " ".join(widths)
    named = next((guess for mark, guess in _MARKS if mark.search(names)), None)
    return (
        named(widths) if named else Guess(title="a model that diffbox does not know", known=False)
    )


def _usual(widths: Widths, *endings: str) -> int:
    """The most common width of modules whose names end like this; 0 without any."""
    found = Counter(width for name, width in widths.items() if name.endswith(endings))
    return found.most_common(1)[0][0] if found else 0


def _unet(widths: Widths) -> Guess:
    # The cross attention's keys read the text encoder's output, and its width tells the version.
    context = _usual(widths, "attn2_to_k", "attn2_to_v")
    return Guess(title=_UNET_SIZES.get(context, "a Stable Diffusion UNet"))


def _double_stream(widths: Widths) -> Guess:
    """Flux has 19 double and 38 single blocks, HunyuanVideo 20 and 40."""
    names = " ".join(widths)
    blocks = re.findall(r"(single_)?(?:transformer_|double_|)blocks_(\d+)_", names)
    beyond = any(int(number) >= (38 if single else 19) for single, number in blocks)
    return Guess(title="HunyuanVideo" if beyond or "_fc1" in names else "Flux")


def _wan(widths: Widths) -> Guess:
    width = _usual(widths, "attn_q", "attn1_to_q", "ffn_0")
    title = _WAN_SIZES.get(width, f"a Wan model of width {width}")
    if width == 5120 and any("k_img" in name or "add_k_proj" in name for name in widths):
        title = "Wan 2.1 I2V 14B"
    return Guess(title=title, family="wan_video")


def _joint(widths: Widths) -> Guess:
    width = _usual(widths, "to_q", "add_q_proj", "mod_1")
    if width in {1536, 2432}:
        return Guess(title="Stable Diffusion 3")
    title = "Qwen Image" if width == _QWEN_WIDTH else f"a Qwen Image model of width {width}"
    return Guess(title=title, family="qwen_image")


def _plain(widths: Widths) -> Guess:
    return Guess(title="CogVideoX" if _usual(widths, "to_q") in {1920, 3072} else "LTX-Video")


def _always(title: str) -> Callable[[Widths], Guess]:
    return lambda _: Guess(title=title)


# The first that is found in the names decides.
_MARKS: Final[tuple[tuple[re.Pattern[str], Callable[[Widths], Guess]], ...]] = (
    (re.compile(r"\b((input|output|down|up)_blocks?|middle_block|mid_block)_"), _unet),
    (re.compile(r"double_stream_modulation"), _always("Flux 2")),
    (re.compile(r"double_blocks_|single_transformer_blocks_"), _double_stream),
    (re.compile(r"joint_blocks_"), _always("Stable Diffusion 3")),
    (re.compile(r"\bblocks_\d+_((self|cross)_attn_|attn[12]_to_|ffn_)"), _wan),
    (re.compile(r"transformer_blocks_\d+_(attn_add_|img_m|txt_m)"), _joint),
    (re.compile(r"transformer_blocks_\d+_attn1_to_"), _plain),
    (re.compile(r"\b(layers|context_refiner|noise_refiner)_\d+_attention_"), _always("Z-Image")),
)
