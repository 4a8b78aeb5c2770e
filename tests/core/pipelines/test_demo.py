"""The demo files: the same everywhere, made anew when damaged, and small."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from core import catalog
from core.pipelines import demo
from core.pipelines.stock import MODEL_CONFIGS, hash_model_file

# Of recipe 2. A change here is a change of everybody's demo weights: count RECIPE up.
KNOWN = {
    "high_noise_model": "9e1b5ba0f3d8b728404c46fedce745764aedae58f2d0186a580d124259012821",
    "low_noise_model": "d0a8a8180cfe2a2c8bcd13bea0f49538b5cd971645ac24b3960571a36f319e09",
}


def digests(models_dir: Path) -> dict[str, str]:
    files = sorted((models_dir / demo.FOLDER).rglob("*.*"))
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_files_are_the_same_bytes_everywhere(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        demo.ensure(tmp_path / folder)
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    assert first["high_noise_model"] != first["low_noise_model"]
    assert KNOWN.items() <= first.items()


def test_files_are_where_the_catalog_says_and_small(tmp_path: Path) -> None:
    demo.ensure(tmp_path)
    assert catalog.missing_files(catalog.model("wan-demo"), tmp_path) == ()
    files = (tmp_path / demo.FOLDER).rglob("*.*")
    assert sum(file.stat().st_size for file in files) < 30_000_000


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove", "tokenizer"])
def test_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    demo.ensure(tmp_path)
    whole = digests(tmp_path)
    path = tmp_path / demo.FOLDER / "vae.safetensors"
    content = path.read_bytes()
    if damage == "tokenizer":
        (tmp_path / demo.FOLDER / "tokenizer/tokenizer.json").write_text("{}")
    elif damage == "remove":
        path.unlink()
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes({"truncate": content[:-9], "empty": b"", "flip": flipped}[damage])
    demo.ensure(tmp_path)
    assert digests(tmp_path) == whole


def test_two_workers_may_make_them_at_once(tmp_path: Path) -> None:
    threads = [threading.Thread(target=demo.ensure, args=(tmp_path,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert KNOWN.items() <= digests(tmp_path).items()


def test_whole_files_are_left_alone(tmp_path: Path) -> None:
    demo.ensure(tmp_path)
    path = tmp_path / demo.FOLDER / "vae.safetensors"
    before = path.stat().st_ino
    demo.ensure(tmp_path)
    assert path.stat().st_ino == before


def test_loader_recognises_each_file_once_registered(tmp_path: Path) -> None:
    demo.ensure(tmp_path)
    demo.register()
    demo.register()
    for name in ("high_noise_model", "low_noise_model", "text_encoder", "vae"):
        digest = hash_model_file(str(tmp_path / demo.FOLDER / f"{name}.safetensors"))
        assert len([row for row in MODEL_CONFIGS if row["model_hash"] == digest]) == 1
