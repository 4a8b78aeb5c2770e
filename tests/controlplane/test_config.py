"""Settings: every wrong value stops the start and names its variable."""

from __future__ import annotations

import pytest

from controlplane.config import load_settings
from core.config import Env
from core.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DIFFBOX_HOST", "http://localhost"),
        ("DIFFBOX_HOST", "localhost:8080"),
        ("DIFFBOX_PORT", "99999"),
        ("DIFFBOX_PUBLIC_HOSTS", "a.example,https://b.example"),
        ("DIFFBOX_PUBLIC_HOSTS", "a.example:8080"),
        ("DIFFBOX_BACKEND", "redis"),
        ("DIFFBOX_BACKEND", "runpod"),
        ("DIFFBOX_VALKEY_URL", "localhost:6379"),
        ("DIFFBOX_VALKEY_URL", "http://localhost"),
        ("DIFFBOX_VALKEY_PORT", "-1"),
        ("DIFFBOX_WORKER_COUNT", "many"),
        ("DIFFBOX_PYTHON_PATH", "/nothing/python"),
        ("DIFFBOX_ENGINE", "handler.compose"),
        ("DIFFBOX_LEASE_S", "1"),
        ("DIFFBOX_LANE_LENGTH", "0"),
        ("DIFFBOX_IMAGE_MAX_MB", "0"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load_settings(Env({name: value}))


def test_the_message_about_a_wrong_queue_address_does_not_show_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(Env({"DIFFBOX_VALKEY_URL": "http://:secret@host"}))
    assert "secret" not in caught.value.message


def test_nothing_set_suits_one_person_on_one_computer() -> None:
    settings = load_settings(Env({}))
    assert settings.host == "127.0.0.1" and settings.loopback and settings.backend == "valkey"
    assert settings.allowed_hosts == {"localhost", "127.0.0.1", "::1"}


def test_limits_are_given_in_megabytes() -> None:
    assert load_settings(Env({"DIFFBOX_VIDEO_MAX_MB": "2"})).video_max_bytes == 2_000_000


def test_a_pod_is_public_and_reached_under_its_proxy_name() -> None:
    settings = load_settings(Env({"RUNPOD_POD_ID": "AbC", "DIFFBOX_PORT": "8000"}))
    assert not settings.loopback
    assert "abc-8000.proxy.runpod.net" in settings.allowed_hosts


def test_a_page_on_all_addresses_is_reached_under_each_address_but_no_foreign_name() -> None:
    settings = load_settings(Env({"DIFFBOX_HOST": "0.0.0.0"}))
    assert settings.is_known_host("192.168.1.5") and settings.is_known_host("fe80::1")
    assert not settings.is_known_host("evil.example") and not settings.is_known_host("")
    assert not load_settings(Env({})).is_known_host("192.168.1.5")


def test_secrets_are_not_in_the_settings_text() -> None:
    env = {"DIFFBOX_PASSWORD": "hunter22", "DIFFBOX_VALKEY_URL": "redis://:hunter22@host"}
    assert "hunter22" not in repr(load_settings(Env(env)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "box.example"])
def test_any_but_a_loopback_address_is_public(host: str) -> None:
    assert not load_settings(Env({"DIFFBOX_HOST": host})).loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9"])
def test_a_loopback_address_is_not_public(host: str) -> None:
    assert load_settings(Env({"DIFFBOX_HOST": host})).loopback
