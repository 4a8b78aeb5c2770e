"""PNG: every pixel as it is, metadata with it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.media import embedded, read_embedded, write_png
from core.protocol import Job
from tests.support.pictures import encoded, gradient

JOB = Job(
    workflow="qwen",
    params={
        "prompt": 'a "boat"; \\ \n 🚤',
        "seed": 7,
        "edit_images": ["https://host/a.png?token=secret", "data:image/png;base64,AAAA"],
    },
)


def written(folder: Path, metadata: dict[str, Any]) -> Path:
    write_png(folder / "a.png", gradient(), metadata=metadata)
    return folder / "a.png"


def test_pixels_are_bit_identical(tmp_path: Path) -> None:
    path = written(tmp_path, {})
    with Image.open(path) as image:
        assert image.mode == "RGB"
        assert (np.asarray(image) == np.asarray(gradient())).all()


def test_metadata_is_read_back_and_holds_no_secret(tmp_path: Path) -> None:
    metadata = embedded(JOB, {"models": [{"id": "qwen-demo"}]})
    path = written(tmp_path, metadata)
    found = read_embedded(path)
    assert found == metadata
    assert found["params"]["prompt"] == JOB.params["prompt"]
    source, inline = found["params"]["edit_images"]
    assert source == "https://host/a.png"
    assert inline.startswith("data:sha256:")
    assert b"secret" not in path.read_bytes()


def test_it_is_known_by_its_content(tmp_path: Path) -> None:
    path = written(tmp_path, {"diffbox": "1"})
    assert read_embedded(path.rename(tmp_path / "a.mp4")) == {"diffbox": "1"}


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path, {"diffbox": "1"}).read_bytes()
    assert written(tmp_path, {"diffbox": "1"}).read_bytes() == first


def chunk(kind: bytes, size: int, content: bytes) -> bytes:
    return struct.pack(">I", size) + kind + content + b"\0\0\0\0"


OURS = b'diffbox\0\0\0\0\0{"diffbox":"1"}'
HEAD = encoded(gradient())[:33]


@pytest.mark.parametrize(
    "content",
    [
        encoded(gradient()),
        HEAD,
        HEAD + chunk(b"iTXt", 2**31, OURS),
        HEAD + chunk(b"tEXt", len(OURS), OURS),
        HEAD + chunk(b"iTXt", 20, b"diffbox\0\1\0\0\0" + b"\x78" * 8),
        HEAD + chunk(b"iTXt", 16, b"diffbox\0\0\0\0\0\xff\xfe{}"),
        HEAD + chunk(b"iTXt", 15, b"diffbox\0\0\0\0\0[1]"),
        HEAD + chunk(b"IDAT", 0, b"") + chunk(b"iTXt", len(OURS), OURS),
    ],
)
def test_foreign_and_damaged_files_have_no_metadata(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert read_embedded(tmp_path / "a.png") is None


def test_a_chunk_that_another_program_put_before_ours_is_passed_over(tmp_path: Path) -> None:
    content = HEAD + chunk(b"tEXt", 3, b"a\0b") + chunk(b"iTXt", len(OURS), OURS)
    (tmp_path / "a.png").write_bytes(content)
    assert read_embedded(tmp_path / "a.png") == {"diffbox": "1"}
