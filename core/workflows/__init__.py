"""The registry: one line a workflow.

`register` adds workflows from outside the package at start (DIFFBOX_WORKFLOWS); the control
plane and the worker must be given the same ones.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from core.errors import ConfigError, UnknownWorkflow
from core.workflows.base import Workflow
from core.workflows.i2v import I2V
from core.workflows.qwen import Qwen
from core.workflows.svi import Svi

WORKFLOWS: Final[tuple[Workflow[Any], ...]] = (I2V(), Svi(), Qwen())
_registered: Final[dict[str, Workflow[Any]]] = {known.id: known for known in WORKFLOWS}


def workflows() -> tuple[Workflow[Any], ...]:
    """All known workflows, our own first."""
    return tuple(_registered.values())


def workflow(workflow_id: str) -> Workflow[Any]:
    """The workflow with this id.

    Raises:
        UnknownWorkflow: there is none; the message lists what there is.
    """
    if workflow_id in _registered:
        return _registered[workflow_id]
    raise UnknownWorkflow(f"workflow {workflow_id!r} is not one of {', '.join(_registered)}")


def register(path: str) -> None:
    """Add the Workflow class at "package.module:Class". Doing it twice is harmless.

    Raises:
        ConfigError: nothing importable is there, or it is not a Workflow.
    """
    module, _, name = path.partition(":")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"DIFFBOX_WORKFLOWS: {path!r} can't be imported: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Workflow)):
        raise ConfigError(f"DIFFBOX_WORKFLOWS: {path!r} is not a Workflow class")
    added: Workflow[Any] = cls()
    _registered.setdefault(added.id, added)
