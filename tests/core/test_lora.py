"""LoRA files: found by name, recognised by their headers, refused where they don't go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core import catalog
from core.errors import DiffboxError, InvalidParams, ModelMissing
from core.lora import LoraPart, LoraShelf, LoraUse
from tests.support.loras import (
    as_weights,
    folders,
    kohya,
    peft,
    unet,
    wan_linears,
    write_header,
)

A14B = "wan2.2-i2v-a14b"
WAN = wan_linears(5120, 13824, 4)
QWEN = {
    "transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer_blocks.0.attn.to_out.0": (3072, 3072),
    "transformer_blocks.0.attn.add_k_proj": (3072, 3072),
    "transformer_blocks.0.img_mlp.net.0.proj": (12288, 3072),
    "transformer_blocks.0.txt_mod.1": (18432, 3072),
}


class Shelf:
    """A folder with base models of a few blocks and with LoRA files."""

    def __init__(self, root: Path) -> None:
        self.models = root / "models"
        self.shelf = LoraShelf(folders(root))
        for expert in ("high", "low"):
            self.base(f"Wan-AI/Wan2.2-I2V-A14B/{expert}_noise_model", WAN)
        self.base("Qwen/Qwen-Image-Edit-2511/transformer", QWEN)

    def base(self, folder: str, linears: Mapping[str, tuple[int, int]]) -> None:
        path = self.models / "base" / folder / "diffusion_pytorch_model.safetensors"
        write_header(path, {**as_weights(linears), "blocks.0.norm3.weight": (5120,)})

    def put(self, name: str, shapes: Mapping[str, tuple[int, ...]], **metadata: str) -> str:
        write_header(self.models / "lora" / name, shapes, metadata)
        return name

    def use(self, name: str, model: str = A14B, expert: Any = "high") -> LoraUse:
        part = LoraPart(place="lora[0].high", expert=expert, name=name, strength=1.0)
        (use,) = self.shelf.uses(model, "i2v", [part])
        return use


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def refused(shelf: Shelf, name: str, **options: Any) -> DiffboxError:
    with pytest.raises(DiffboxError) as caught:
        shelf.use(name, **options)
    assert caught.value.problems[0].field == "lora"
    return caught.value


# --- spellings -----------------------------------------------------------------------------------


def diffusers_wan(module: str) -> str:
    for ours, theirs in (
        ("self_attn.o", "attn1.to_out.0"),
        ("cross_attn.o", "attn2.to_out.0"),
        ("self_attn.", "attn1.to_"),
        ("cross_attn.", "attn2.to_"),
        ("ffn.0", "ffn.net.0.proj"),
        ("ffn.2", "ffn.net.2"),
    ):
        module = module.replace(ours, theirs)
    return module


DIFFUSERS = {diffusers_wan(module): shape for module, shape in WAN.items()}


@pytest.mark.parametrize(
    "shapes",
    [
        peft(WAN),
        peft(WAN, adapter=".default"),
        peft(WAN, prefix="diffusion_model."),
        peft(WAN, prefix="base_model.model."),
        peft(WAN, prefix="base_model.model.diffusion_model."),
        peft(WAN, prefix="model.diffusion_model.", adapter=".high"),
        peft(DIFFUSERS, prefix="transformer."),
        kohya(WAN),
        kohya(WAN, prefix="diffusion_model."),
        kohya(WAN, prefix="lora_unet_", separator="_"),
        kohya(DIFFUSERS, prefix="lora_transformer_", separator="_"),
    ],
    ids=lambda shapes: next(iter(shapes)),
)
def test_every_common_spelling_finds_the_bases_modules(
    shelf: Shelf, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    use = shelf.use(shelf.put("a.safetensors", shapes))
    assert set(use.pairs) == set(WAN)
    assert use.left_out == 0
    assert {pair.rank for pair in use.pairs.values()} == {4}


@pytest.mark.parametrize(
    "shapes",
    [
        peft(QWEN),
        peft(QWEN, prefix="transformer.", adapter=".default"),
        kohya(QWEN, prefix="diffusion_model."),
        kohya(QWEN, prefix="lora_unet_", separator="_"),
        {
            f"transformer.{name}.lora.{side}.weight": shape
            for name, (outputs, inputs) in QWEN.items()
            for side, shape in (("down", (8, inputs)), ("up", (outputs, 8)))
        },
    ],
    ids=lambda shapes: next(iter(shapes)),
)
def test_and_so_for_qwen(shelf: Shelf, shapes: Mapping[str, tuple[int, ...]]) -> None:
    name = shelf.put("a.safetensors", shapes)
    use = shelf.use(name, model="qwen-image-edit-2511", expert="transformer")
    assert set(use.pairs) == set(QWEN)


def test_alpha_is_found_beside_its_matrices(shelf: Shelf) -> None:
    use = shelf.use(shelf.put("a.safetensors", kohya(WAN, prefix="diffusion_model.")))
    pair = use.pairs["blocks.0.ffn.0"]
    assert pair.alpha == "diffusion_model.blocks.0.ffn.0.alpha"
    assert (pair.down_shape, pair.up_shape) == ((4, 5120), (13824, 4))


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ('{"transformer.lora_alpha": 8}', (2.0, 2.0)),
        ('{"transformer.lora_alpha": 8, "transformer.use_rslora": true}', (4.0, 4.0)),
        ('{"lora_alpha": 4, "alpha_pattern": {"0.ffn.0": 16}}', (1.0, 4.0)),
        ("{}", (1.0, 1.0)),
        ("not JSON", (1.0, 1.0)),
    ],
)
def test_alpha_in_pefts_metadata_counts(
    shelf: Shelf, settings: str, scales: tuple[float, float]
) -> None:
    name = shelf.put("a.safetensors", peft(WAN), lora_adapter_metadata=settings)
    pairs = shelf.use(name).pairs
    assert (pairs["blocks.1.ffn.0"].scale, pairs["blocks.0.ffn.0"].scale) == scales


# --- how much has to fit -------------------------------------------------------------------------


def test_nine_tenths_are_enough(shelf: Shelf) -> None:
    linears = {**dict(list(WAN.items())[:36]), **{f"extra.{n}": (8, 8) for n in range(4)}}
    use = shelf.use(shelf.put("a.safetensors", peft(linears)))
    assert (len(use.pairs), use.left_out) == (36, 8)


def test_less_than_nine_tenths_is_refused_and_told_exactly(shelf: Shelf) -> None:
    linears = {**dict(list(WAN.items())[:35]), **{f"extra.{n}": (8, 8) for n in range(4)}}
    error = refused(shelf, shelf.put("style/a.safetensors", peft(linears)))
    assert isinstance(error, InvalidParams)
    assert error.message == (
        "lora[0].high: 'style/a.safetensors' does not go on Wan 2.2 I2V A14B: 89% of its modules "
        "are there, at least 90% are needed. It seems to be for Wan 14B (2.1 or 2.2)"
    )


def test_a_module_of_another_shape_does_not_fit(shelf: Shelf) -> None:
    error = refused(shelf, shelf.put("a.safetensors", peft(wan_linears(1536, 8960, 4))))
    assert "0% of its modules" in error.message
    assert "Wan 2.1 1.3B" in error.message


def test_matrices_of_different_ranks_do_not_fit(shelf: Shelf) -> None:
    shapes = peft(WAN)
    for name in list(shapes)[:10:2]:
        shapes[name] = (8, *shapes[name][1:])
    assert "87% of its modules" in refused(shelf, shelf.put("a.safetensors", shapes)).message


def test_half_a_pair_counts_as_a_module_that_is_not_there(shelf: Shelf) -> None:
    shapes = peft(WAN)
    for name in list(shapes)[:10:2]:
        del shapes[name]
    assert "87% of its modules" in refused(shelf, shelf.put("a.safetensors", shapes)).message


def test_what_wan_2_1_has_for_its_second_look_at_the_picture_does_not_count(shelf: Shelf) -> None:
    """LoRAs of Wan 2.1 I2V are in use on 2.2, which has no such modules."""
    image = {f"blocks.{n}.cross_attn.{part}_img": (5120, 5120) for n in range(4) for part in "kv"}
    use = shelf.use(shelf.put("a.safetensors", peft({**WAN, **image})))
    assert (len(use.pairs), use.left_out) == (40, 16)


def test_biases_and_norms_are_told_as_left_out(shelf: Shelf) -> None:
    more = {"diffusion_model.blocks.0.norm3.diff": (5120,), "patch_embedding.diff_b": (5120,)}
    use = shelf.use(shelf.put("a.safetensors", {**peft(WAN), **more}))
    assert use.left_out == 2
    assert use.provenance()["left_out"] == 2


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("blocks.0.ffn.0.lokr_w1", "LoKr"),
        ("blocks.0.ffn.0.hada_w1_a", "LoHa"),
        ("blocks.0.ffn.0.dora_scale", "DoRA"),
        ("blocks.0.ffn.0.oft_blocks", "OFT"),
    ],
)
def test_relatives_of_lora_are_refused_by_their_name(shelf: Shelf, key: str, kind: str) -> None:
    name = shelf.put("a.safetensors", {**peft(WAN), key: (8, 8)})
    assert f"is a {kind}" in refused(shelf, name).message


def test_a_file_without_any_lora_is_refused(shelf: Shelf) -> None:
    name = shelf.put("a.safetensors", as_weights(WAN))
    assert "holds no LoRA" in refused(shelf, name).message


# --- what it seems to be for ---------------------------------------------------------------------

FLUX = {f"double_blocks.{n}.img_attn.qkv": (9216, 3072) for n in range(19)} | {
    f"single_blocks.{n}.linear1": (21504, 3072) for n in range(38)
}
HUNYUAN = {f"double_blocks.{n}.img_attn_qkv": (9216, 3072) for n in range(20)}


@pytest.mark.parametrize(
    ("shapes", "title"),
    [
        (kohya(unet(2048)), "SDXL"),
        (kohya(unet(768)), "Stable Diffusion 1.5"),
        (kohya(unet(1024)), "Stable Diffusion 2"),
        (
            peft(
                {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (640, 2048)},
                prefix="base_model.model.",
            ),
            "SDXL",
        ),
        (peft(FLUX, prefix="diffusion_model."), "Flux"),
        (kohya(FLUX, prefix="lora_unet_", separator="_"), "Flux"),
        (
            peft({"single_transformer_blocks.37.attn.to_q": (3072, 3072)}, prefix="transformer."),
            "Flux",
        ),
        (peft({"double_stream_modulation_img.lin": (1, 6144)}), "Flux 2"),
        (peft(HUNYUAN), "HunyuanVideo"),
        (kohya(HUNYUAN, prefix="lora_unet_", separator="_"), "HunyuanVideo"),
        (peft(wan_linears(1536, 8960, 2)), "Wan 2.1 1.3B"),
        (peft(wan_linears(3072, 14336, 2)), "Wan 2.2 5B"),
        (
            peft({**wan_linears(5120, 13824, 2), "blocks.0.cross_attn.k_img": (5120, 5120)}),
            "Wan 2.1 I2V 14B",
        ),
        (peft(DIFFUSERS, prefix="transformer."), "Wan 14B (2.1 or 2.2)"),
        (peft(QWEN, prefix="transformer."), "Qwen Image"),
        (kohya(QWEN, prefix="lora_unet_", separator="_"), "Qwen Image"),
        (peft({"transformer_blocks.0.attn.add_q_proj": (1536, 1536)}), "Stable Diffusion 3"),
        (peft({"transformer_blocks.0.attn1.to_q": (3072, 3072)}), "CogVideoX"),
        (peft({"transformer_blocks.0.attn1.to_q": (2048, 2048)}), "LTX-Video"),
        (peft({"layers.0.attention.to_q": (3840, 3840)}), "Z-Image"),
        (peft({"encoder.0.x": (8, 8)}), "a model that diffbox does not know"),
    ],
)
def test_a_refused_file_is_told_what_it_seems_to_be_for(
    shelf: Shelf, shapes: Mapping[str, tuple[int, ...]], title: str
) -> None:
    # Where Wan or Qwen fit, the other one is asked.
    qwen = {"model": "qwen-image-edit-2511", "expert": "transformer"}
    options = qwen if title.startswith("Wan") else {}
    message = refused(shelf, shelf.put("a.safetensors", shapes), **options).message
    assert message.endswith(f"It seems to be for {title}")


# --- where files are looked for ------------------------------------------------------------------


def test_a_missing_file_is_told_with_its_folder(shelf: Shelf) -> None:
    error = refused(shelf, "nowhere/a.safetensors")
    assert isinstance(error, ModelMissing)
    assert f"'nowhere/a.safetensors' below {shelf.models / 'lora'}" in error.message


def test_a_link_that_leads_out_of_the_folder_is_refused(shelf: Shelf) -> None:
    write_header(shelf.models / "secret.safetensors", peft(WAN))
    link = shelf.models / "lora" / "a.safetensors"
    link.parent.mkdir()
    link.symlink_to("../secret.safetensors")
    error = refused(shelf, "a.safetensors")
    assert isinstance(error, InvalidParams)
    assert "leads out of the folder" in error.message


def test_the_folder_itself_may_be_a_link(shelf: Shelf, tmp_path: Path) -> None:
    write_header(tmp_path / "disk" / "a.safetensors", peft(WAN))
    (shelf.models / "lora").symlink_to(tmp_path / "disk")
    assert len(shelf.use("a.safetensors").pairs) == 40


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"PK\x03\x04" + bytes(99), "pickle"), (b"", "damaged"), (bytes(99), "damaged")],
)
def test_a_file_that_holds_something_else_is_refused(
    shelf: Shelf, content: bytes, said: str
) -> None:
    path = shelf.models / "lora" / "a.safetensors"
    path.parent.mkdir()
    path.write_bytes(content)
    assert said in refused(shelf, "a.safetensors").message


def test_a_pair_of_which_one_file_is_missing_says_which(shelf: Shelf) -> None:
    ref = catalog.find_lora("wan2.2-lightning")
    assert ref
    assert ref.high
    assert ref.low
    write_header(shelf.models / "base" / ref.high.repo / ref.high.pattern, peft(WAN))
    shelf.use(ref.id, expert="high")  # one expert alone is all right
    error = refused(shelf, ref.id, expert="low")
    assert isinstance(error, ModelMissing)
    assert f"{ref.low.repo}: {ref.low.pattern} for the low noise expert" in error.message


@pytest.mark.parametrize("folder", ["base", "lora", "."])
def test_files_of_the_catalog_are_found_in_three_places(shelf: Shelf, folder: str) -> None:
    ref = catalog.find_lora("svi-2.0-pro")
    assert ref
    assert ref.high
    path = write_header(shelf.models / folder / ref.high.repo / ref.high.pattern, peft(WAN))
    assert shelf.use(ref.id).path.samefile(path)


def test_without_its_base_model_the_model_is_what_is_missing(tmp_path: Path) -> None:
    write_header(tmp_path / "models/lora/a.safetensors", peft(WAN))
    part = LoraPart(place="lora[0].high", expert="high", name="a.safetensors", strength=1.0)
    with pytest.raises(ModelMissing, match="Wan 2.2 I2V A14B is not complete"):
        LoraShelf(folders(tmp_path)).uses(A14B, "i2v", [part])


def test_the_low_expert_of_a_model_with_one_is_refused(shelf: Shelf) -> None:
    shelf.base("Wan-AI/Wan2.1-I2V-14B-480P", WAN)
    name = shelf.put("a.safetensors", peft(WAN))
    assert len(shelf.use(name, model="wan2.1-i2v-14b-480p").pairs) == 40
    error = refused(shelf, name, model="wan2.1-i2v-14b-480p", expert="low")
    assert "one expert only: give the file as `high`" in error.message


def test_provenance_tells_name_expert_strength_and_hash_but_no_path(shelf: Shelf) -> None:
    told = shelf.use(shelf.put("a.safetensors", peft(WAN))).provenance()
    assert {**told, "sha256": len(told["sha256"])} == {
        "name": "a.safetensors",
        "expert": "high",
        "strength": 1.0,
        "sha256": 64,
    }


# --- what a workflow puts on by itself -----------------------------------------------------------


@pytest.fixture
def svi(shelf: Shelf) -> Shelf:
    ref = catalog.find_lora("svi-2.0-pro")
    assert ref
    for file in ref.files:
        write_header(shelf.models / "base" / file.repo / file.pattern, peft(WAN))
    return shelf


def test_a_workflows_own_pair_goes_on_without_being_asked_for(svi: Shelf) -> None:
    uses = svi.shelf.uses(A14B, "svi", [])
    assert [(use.name, use.expert, use.strength) for use in uses] == [
        ("svi-2.0-pro", "high", 1.0),
        ("svi-2.0-pro", "low", 1.0),
    ]
    assert svi.shelf.uses(A14B, "i2v", []) == ()


def test_naming_it_changes_its_strength_instead_of_adding_it_twice(svi: Shelf) -> None:
    part = LoraPart(place="lora[0].low", expert="low", name="svi-2.0-pro", strength=0.5)
    uses = svi.shelf.uses(A14B, "svi", [part])
    assert [(use.expert, use.strength) for use in uses] == [("high", 1.0), ("low", 0.5)]


def test_a_workflows_own_pair_that_is_missing_is_told(shelf: Shelf) -> None:
    with pytest.raises(ModelMissing, match="SVI 2.0 Pro is not complete.*vita-video-gen"):
        shelf.shelf.uses(A14B, "svi", [])


# --- from where the weights may be out of sight --------------------------------------------------


def checked(shelf: LoraShelf, name: str, model: str = A14B, *, all_here: bool) -> None:
    part = LoraPart(place="lora[0].high", expert="high", name=name, strength=1.0)
    shelf.check(model, "i2v", [part], all_here=all_here)


def test_a_file_that_may_be_elsewhere_is_not_missing(shelf: Shelf) -> None:
    checked(shelf.shelf, "a.safetensors", all_here=False)
    with pytest.raises(ModelMissing):
        checked(shelf.shelf, "a.safetensors", all_here=True)


def test_without_the_base_a_file_of_another_family_is_refused_all_the_same(tmp_path: Path) -> None:
    shelf = LoraShelf(folders(tmp_path))
    write_header(tmp_path / "models/lora/xl.safetensors", kohya(unet(2048)))
    write_header(tmp_path / "models/lora/wan.safetensors", peft(WAN))
    checked(shelf, "wan.safetensors", all_here=False)
    with pytest.raises(InvalidParams, match="'xl.safetensors'.* seems to be for SDXL"):
        checked(shelf, "xl.safetensors", all_here=False)


def test_demo_files_that_are_made_on_first_use_are_not_missing(tmp_path: Path) -> None:
    checked(LoraShelf(folders(tmp_path)), "wan-demo-style", "wan-demo", all_here=True)


def test_with_the_base_at_hand_the_whole_check_is_made(shelf: Shelf) -> None:
    name = shelf.put("a.safetensors", peft(wan_linears(1536, 8960, 2)))
    with pytest.raises(InvalidParams, match="Wan 2.1 1.3B"):
        checked(shelf.shelf, name, all_here=False)


def test_a_model_of_somebody_elses_workflow_takes_none(tmp_path: Path) -> None:
    shelf = LoraShelf(folders(tmp_path))
    assert shelf.uses("foreign", "painter", []) == ()
    with pytest.raises(InvalidParams, match="'foreign' is not one that LoRAs go on"):
        checked(shelf, "a.safetensors", "foreign", all_here=False)
