"""Environment variables: typed, and every error names the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import CoreConfig, Env, core_fields
from core.errors import ConfigError


def test_folders_default_to_the_working_directory() -> None:
    config = CoreConfig(**core_fields(Env({})))
    assert config.data_dir == Path.cwd() / "data"
    assert config.uploads_dir == Path.cwd() / "data" / "uploads"
    assert config.workflows == ()


def test_folders_and_workflows_come_from_the_environment(tmp_path: Path) -> None:
    env = Env({"DIFFBOX_DATA_DIR": str(tmp_path), "DIFFBOX_WORKFLOWS": "a.b:C, d.e:F"})
    config = CoreConfig(**core_fields(env))
    assert config.data_dir == tmp_path
    assert config.workflows == ("a.b:C", "d.e:F")


@pytest.mark.parametrize("raw", ["x", "0", "70000", "1.5"])
def test_a_number_out_of_range_names_the_variable(raw: str) -> None:
    with pytest.raises(ConfigError, match="DIFFBOX_PORT=.*from 1 to 65535"):
        Env({"DIFFBOX_PORT": raw}).integer("DIFFBOX_PORT", 8080, low=1, high=65535)


@pytest.mark.parametrize("raw", ["x", "-1", "nan", "inf"])
def test_seconds_that_are_none_name_the_variable(raw: str) -> None:
    with pytest.raises(ConfigError, match="DIFFBOX_LEASE_S"):
        Env({"DIFFBOX_LEASE_S": raw}).seconds("DIFFBOX_LEASE_S", 30)


def test_a_choice_lists_what_is_accepted() -> None:
    with pytest.raises(ConfigError, match="DIFFBOX_BACKEND='x' is not one of valkey, memory"):
        Env({"DIFFBOX_BACKEND": "x"}).choice("DIFFBOX_BACKEND", "valkey", ("valkey", "memory"))


def test_flags_are_words() -> None:
    assert Env({"X": "Yes"}).flag("X", False)
    assert not Env({"X": "off"}).flag("X", True)
    with pytest.raises(ConfigError, match="X='maybe'"):
        Env({"X": "maybe"}).flag("X", True)


def test_an_empty_value_counts_as_not_set() -> None:
    assert Env({"X": "  "}).text("X", "default") == "default"
