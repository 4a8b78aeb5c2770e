"""Settings that every process of diffbox shares, and how environment variables are read.

A bad value stops the start with the variable's name and what would be accepted. Handler and
control plane extend `CoreConfig` in their own config.py; nothing else reads the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypedDict, cast, get_args

from core.errors import ConfigError

VramSetting = Literal["auto", "full", "offload", "fp8", "disk"]
Attention = Literal["auto", "flash", "sage", "sdpa"]

_POLICIES: Final = get_args(VramSetting)
_ATTENTIONS: Final = get_args(Attention)


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreConfig:
    """The three folders, made on first use, not here; and how models are kept and computed."""

    data_dir: Path
    models_dir: Path
    outputs_dir: Path
    workflows: tuple[str, ...] = ()
    """Further Workflow classes, "package.module:Class" each (DIFFBOX_WORKFLOWS, by commas)."""

    vram_policy: VramSetting = "auto"
    """Where weights wait while they are not needed (DIFFBOX_VRAM_POLICY)."""
    attention: Attention = "auto"
    """What attention is computed with (DIFFBOX_ATTENTION)."""
    compile: bool = False
    """Whether the models' blocks are compiled (DIFFBOX_COMPILE)."""

    @property
    def compiled_dir(self) -> Path:
        """What was compiled, kept for the next process."""
        return self.data_dir / "compiled"

    @property
    def uploads_dir(self) -> Path:
        """Input files that the control plane keeps, named by their sha256."""
        return self.data_dir / "uploads"


class Env:
    """Typed reading of environment variables; every error names the variable."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = os.environ if values is None else values

    def copy(self) -> dict[str, str]:
        """All variables, to be handed to a child process."""
        return dict(self._values)

    def text(self, name: str, default: str = "") -> str:
        """The value without surrounding blanks; an empty one counts as not set."""
        return self._values.get(name, "").strip() or default

    def path(self, name: str, default: str | Path) -> Path:
        """An absolute path; `~` is expanded."""
        return Path(self.text(name, str(default))).expanduser().absolute()

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        raw = self.text(name, str(default))
        try:
            value = int(raw)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ConfigError(f"{name}={raw!r} is not a whole number from {low} to {high}")
        return value

    def seconds(self, name: str, default: float, *, low: float = 0.0) -> float:
        """A duration in seconds, at least `low`."""
        raw = self.text(name, str(default))
        try:
            value = float(raw)
        except ValueError:
            value = low - 1
        if not low <= value < float("inf"):
            raise ConfigError(f"{name}={raw!r} is not a number of seconds from {low:g} up")
        return value

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """One of `choices`."""
        value = self.text(name, default)
        if value not in choices:
            raise ConfigError(f"{name}={value!r} is not one of {', '.join(choices)}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """1, true, yes, on or 0, false, no, off."""
        raw = self.text(name, "1" if default else "0").lower()
        if raw in {"1", "true", "yes", "on"}:
            return True
        if raw in {"0", "false", "no", "off"}:
            return False
        raise ConfigError(f"{name}={raw!r} is not one of 1, true, yes, on, 0, false, no, off")


def keep_compiled(config: CoreConfig) -> None:
    """Have torch keep what it compiles in `compiled_dir` from now on."""
    # Over what is there: torch fills it in by itself, so nobody can tell whether a person did.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(config.compiled_dir)


class CoreFields(TypedDict):
    """`CoreConfig`'s fields, for the classes that extend it."""

    data_dir: Path
    models_dir: Path
    outputs_dir: Path
    workflows: tuple[str, ...]
    vram_policy: VramSetting
    attention: Attention
    compile: bool


def core_fields(env: Env) -> CoreFields:
    """What `CoreConfig` needs, read from the environment."""
    listed = env.text("DIFFBOX_WORKFLOWS").split(",")
    return {
        "data_dir": env.path("DIFFBOX_DATA_DIR", "data"),
        "models_dir": env.path("DIFFBOX_MODELS_DIR", "models"),
        "outputs_dir": env.path("DIFFBOX_OUTPUTS_DIR", "outputs"),
        "workflows": tuple(path for item in listed if (path := item.strip())),
        "vram_policy": cast("VramSetting", env.choice("DIFFBOX_VRAM_POLICY", "auto", _POLICIES)),
        "attention": cast("Attention", env.choice("DIFFBOX_ATTENTION", "auto", _ATTENTIONS)),
        "compile": env.flag("DIFFBOX_COMPILE", False),
    }
