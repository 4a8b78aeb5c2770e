"""A worker's settings: defaults, and errors that name the variable."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from core.errors import ConfigError
from handler.config import from_env


def test_defaults_are_those_of_the_design() -> None:
    config = from_env({}, pid=42)
    assert (config.lease_s, config.beat_s, config.grace_s, config.max_crashes) == (30, 5, 10, 3)
    assert config.engine == "handler.compose:build_engine"
    assert config.worker_id == f"{socket.gethostname()}-42"
    assert config.models_dir == Path("models").absolute()


def test_every_setting_is_read_from_its_variable() -> None:
    values = {
        "DIFFBOX_WORKER_ID": "w1",
        "DIFFBOX_VALKEY_URL": "unix:///run/valkey.sock",
        "DIFFBOX_LEASE_S": "12",
        "DIFFBOX_GRACE_S": "0.5",
        "DIFFBOX_MAX_CRASHES": "1",
        "DIFFBOX_ENGINE": "a.b:c",
        "DIFFBOX_WORKFLOWS": "x:Y, z:W",
    }
    config = from_env(values)
    assert (config.worker_id, config.valkey_url) == ("w1", "unix:///run/valkey.sock")
    assert (config.lease_s, config.beat_s, config.grace_s) == (12, 2, 0.5)
    assert (config.max_crashes, config.engine, config.workflows) == (1, "a.b:c", ("x:Y", "z:W"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DIFFBOX_LEASE_S", "soon"),
        ("DIFFBOX_LEASE_S", "0.5"),
        ("DIFFBOX_BEAT_S", "29"),
        ("DIFFBOX_MAX_CRASHES", "0"),
        ("DIFFBOX_ENGINE", "no_colon"),
    ],
)
def test_unusable_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}="):
        from_env({name: value})
