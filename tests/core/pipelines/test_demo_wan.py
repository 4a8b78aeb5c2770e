"""The files of the demo variants: the same everywhere, made anew when damaged, recognised."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from core import catalog
from core.pipelines import demo_wan
from core.pipelines.stock import MODEL_CONFIGS, hash_model_file

# Of recipe 1. A change here is a change of everybody's demo weights: count RECIPE up.
KNOWN = {
    "wan-demo-camera": "6bfa31c06005b296957d7aa581b5b5f136f7d6c503fae7f64bf676669bf410b0",
    "wan-demo-2.1": "3faf3c9945674202cee7c843452f41c6efd943b10fe8262b0c42bf5eca691045",
    "wan-demo-speed": "39756ecb08450abcec0ac0095f1ce37a7149122e8141b80d6196ee7744e3719f",
}


def high(model: str, models_dir: Path) -> Path:
    row = catalog.model(model)
    return catalog.locate(row.files[0], models_dir)[0]


@pytest.mark.parametrize("model", KNOWN)
def test_files_are_where_the_catalog_says_the_same_everywhere_and_small(
    tmp_path: Path, model: str
) -> None:
    demo_wan.ensure(tmp_path, model)
    row = catalog.model(model)
    assert catalog.missing_files(row, tmp_path) == ()
    assert hashlib.sha256(high(model, tmp_path).read_bytes()).hexdigest() == KNOWN[model]
    sizes = [path.stat().st_size for file in row.files for path in catalog.locate(file, tmp_path)]
    assert sum(sizes) < 30_000_000


def test_damaged_file_is_made_anew_and_whole_ones_are_left_alone(tmp_path: Path) -> None:
    demo_wan.ensure(tmp_path, "wan-demo-2.1")
    path = high("wan-demo-2.1", tmp_path)
    beside = path.with_name("image_encoder.safetensors")
    whole, kept = path.read_bytes(), beside.stat().st_ino
    path.write_bytes(whole[:-9])
    demo_wan.ensure(tmp_path, "wan-demo-2.1")
    assert path.read_bytes() == whole
    assert beside.stat().st_ino == kept


@pytest.mark.parametrize("model", KNOWN)
def test_loader_recognises_each_file_once_registered(tmp_path: Path, model: str) -> None:
    demo_wan.ensure(tmp_path, model)
    demo_wan.register()
    demo_wan.register()
    for file in catalog.model(model).files:
        if file.role == "tokenizer":
            continue
        digest = hash_model_file(str(catalog.locate(file, tmp_path)[0]))
        assert len([row for row in MODEL_CONFIGS if row["model_hash"] == digest]) == 1
