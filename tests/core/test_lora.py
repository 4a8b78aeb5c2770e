"""LoRA files: found by name, checked by their headers, refused where they don't go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import catalog
from core.errors import InvalidParams, ModelMissing
from core.lora import LoraPart, LoraShelf
from tests.support.loras import (
    A14B,
    WAN,
    Shelf,
    as_weights,
    folders,
    kohya,
    peft,
    refused,
    unet,
    wan_linears,
    write_header,
)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


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
    empty = LoraShelf(folders(tmp_path))
    checked(empty, "wan-demo-style", "wan-demo", all_here=True)
    with pytest.raises(ModelMissing):
        checked(empty, "wan2.2-lightning", all_here=True)


def test_with_the_base_at_hand_the_whole_check_is_made(shelf: Shelf) -> None:
    name = shelf.put("a.safetensors", peft(wan_linears(1536, 8960, 2)))
    with pytest.raises(InvalidParams, match="Wan 2.1 1.3B"):
        checked(shelf.shelf, name, all_here=False)


def test_a_model_of_somebody_elses_workflow_takes_none(tmp_path: Path) -> None:
    shelf = LoraShelf(folders(tmp_path))
    assert shelf.uses("foreign", "painter", []) == ()
    with pytest.raises(InvalidParams, match="'foreign' is not one that LoRAs go on"):
        checked(shelf, "a.safetensors", "foreign", all_here=False)
