"""The catalog's rows and how their files are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import catalog
from core.errors import InvalidParams

REAL = catalog.model("wan2.2-i2v-a14b")


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_high_stands_before_low_in_every_row_with_two_experts() -> None:
    for row in catalog.MODELS:
        roles = [file.role for file in row.files]
        assert "low" not in roles or roles.index("high") < roles.index("low")


def test_nothing_on_disk_means_everything_is_missing(tmp_path: Path) -> None:
    assert catalog.missing_files(REAL, tmp_path) == REAL.files
    assert not catalog.is_ready(REAL, tmp_path)


def test_the_demo_is_always_ready(tmp_path: Path) -> None:
    assert catalog.is_ready(catalog.model("wan-demo"), tmp_path)


@pytest.mark.parametrize("folder", ["base/", ""])
def test_files_are_found_below_base_and_beside_it(tmp_path: Path, folder: str) -> None:
    name = f"{folder}Wan-AI/Wan2.2-I2V-A14B/high_noise_model/diffusion_pytorch_model.safetensors"
    put(tmp_path, name)
    assert catalog.locate(REAL.files[0], tmp_path) == (tmp_path / name,)


def test_a_missing_shard_is_a_missing_file_set(tmp_path: Path) -> None:
    folder = tmp_path / "base/Wan-AI/Wan2.2-I2V-A14B/high_noise_model"
    names = [f"diffusion_pytorch_model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    put(folder, *names[:2])
    assert catalog.locate(REAL.files[0], tmp_path) == ()
    put(folder, names[2])
    assert [path.name for path in catalog.locate(REAL.files[0], tmp_path)] == names


def test_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(InvalidParams, match="auto, wan2.2-i2v-a14b, .*wan-demo") as caught:
        catalog.model("nope")
    assert caught.value.problems[0].field == "model"


def test_every_model_has_what_its_capabilities_need() -> None:
    needs = {"two_experts": "low", "motion_bucket": "motion_controller"}
    for row in catalog.MODELS:
        roles = {file.role for file in row.files}
        for capability, role in needs.items():
            assert (capability in row.capabilities) is (role in roles), row.id
        assert ("tea_cache" in row.capabilities) is ("tea_cache_id" in row.settings), row.id
        assert not {"step_cache", "tea_cache"} <= row.capabilities, row.id


def test_plain_demo_stands_before_those_of_variants_and_after_all_real_wan_models() -> None:
    for workflow in ("i2v", "svi"):
        demos = [row.demo for row in catalog.models_for(workflow)]
        assert demos == sorted(demos)
    assert next(row for row in catalog.models_for("i2v") if row.demo).id == "wan-demo"
