"""LoRAs and presets over REST: what can't go on is refused when it is sent, not in the queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import catalog
from tests.support.loras import kohya, peft, unet, wan_linears, write_header
from tests.support.server import Served, serving_api
from tests.support.wait import wait_until

MODEL = "wan2.2-i2v-a14b"
LINEARS = wan_linears(5120, 13824, 2)
REQUIRED = {"prompt": "a boat", "input_image": "https://example.org/a.png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With headers of a real model's files, one file of a pair, and two LoRAs of one's own."""
    root = tmp_path_factory.mktemp("loras")
    models = root / "models"
    for file in catalog.model(MODEL).files:
        path = models / "base" / file.repo / file.pattern.replace("*", "x")
        experts = file.role in {"high", "low"}
        linears = {f"{name}.weight": shape for name, shape in LINEARS.items()}
        write_header(path, linears if experts else {"x": (1,)})
    pair = catalog.find_lora("wan2.2-lightning")
    assert pair
    assert pair.high
    write_header(models / "base" / pair.high.repo / pair.high.pattern, peft(LINEARS))
    write_header(models / "lora/styles/good.safetensors", kohya(LINEARS, prefix="diffusion_model."))
    write_header(models / "lora/xl.safetensors", kohya(unet(2048)))
    (models / "lora/pickle.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    return root


@pytest.fixture(scope="module")
def api(folder: Path) -> Iterator[Served]:
    env = {f"DIFFBOX_{name}_DIR": str(folder / name.lower()) for name in ("MODELS", "DATA")}
    with serving_api(folder, **env) as served:
        wait_until(
            lambda: MODEL in {m for w in served.services.backend.workers() for m in w.models}
        )
        yield served


def answer(api: Served, *loras: Any, **more: Any) -> Any:
    raw = {**REQUIRED, "model": MODEL, "lora": list(loras), **more}
    return api.http.post("/api/workflows/i2v", json=raw)


def refused(api: Served, *loras: Any, **more: Any) -> tuple[int, str]:
    told = answer(api, *loras, **more)
    (problem,) = told.json()["error"]["problems"]
    assert problem["field"] == "lora"
    return told.status_code, problem["message"]


def test_a_lora_that_fits_is_taken_and_kept_as_an_object(api: Served) -> None:
    told = answer(api, "high=styles/good.safetensors,high_strength=0.5")
    assert told.status_code == 202
    assert told.json()["params"]["lora"] == [
        {
            "high": "styles/good.safetensors",
            "low": None,
            "high_strength": 0.5,
            "low_strength": 1.0,
        }
    ]


@pytest.mark.parametrize(
    ("lora", "status", "said"),
    [
        ({"high": "xl.safetensors"}, 422, "lora[0].high: 'xl.safetensors' does not go on"),
        ({"low": "xl.safetensors"}, 422, "It seems to be for SDXL"),
        ({"high": "../base/x.safetensors"}, 422, "leads elsewhere"),
        ({"high": "styles/good.ckpt"}, 422, "pickle checkpoint"),
        ({"high": "pickle.safetensors"}, 409, "pickle checkpoint"),
        ({"high": "nowhere.safetensors"}, 409, "there is no file 'nowhere.safetensors' below"),
        ("wan2.2-lightning", 409, "for the low noise expert"),
        ("svi-2.0-pro", 409, "vita-video-gen/svi-model: version-2.0/SVI_Wan2.2"),
    ],
)
def test_one_that_does_not_is_refused_with_the_reason(
    api: Served, lora: Any, status: int, said: str
) -> None:
    found, message = refused(api, lora)
    assert (found, said in message) == (status, True), message


def test_a_preset_whose_lora_is_not_here_names_repository_and_file(api: Served) -> None:
    told = api.http.post(
        "/api/workflows/i2v", json={**REQUIRED, "model": MODEL, "preset": "i2v-lightning-4"}
    )
    assert told.status_code == 409
    message = told.json()["error"]["message"]
    assert "lightx2v/Wan2.2-Distill-Loras: wan2.2_i2v_A14b_low_noise" in message


def test_a_workflow_whose_own_pair_is_not_here_says_so(api: Served) -> None:
    raw = {"prompts": ["a boat"], "input_image": REQUIRED["input_image"], "model": MODEL}
    told = api.http.post("/api/workflows/svi", json=raw)
    assert told.status_code == 409
    assert "SVI 2.0 Pro is not complete on this machine" in told.json()["error"]["message"]


def test_presets_are_listed_with_their_models_and_values(api: Served) -> None:
    listed = {w["id"]: w for w in api.http.get("/api/workflows").json()["workflows"]}
    presets = {preset["id"]: preset for preset in listed["i2v"]["presets"]}
    assert presets["i2v-lightning-4"]["params"]["num_inference_steps"] == 4
    assert "wan-demo" in presets["i2v-demo-lightning"]["models"]
    assert listed["noop"]["presets"] == []


def test_the_schema_of_a_lora_stands_where_it_is_used(api: Served) -> None:
    document = api.http.get("/openapi.json").json()
    body = document["paths"]["/api/workflows/i2v"]["post"]["requestBody"]["content"]
    lora = body["application/json"]["schema"]["properties"]["lora"]
    assert set(lora["items"]["properties"]) == {"high", "low", "high_strength", "low_strength"}
