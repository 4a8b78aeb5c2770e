"""The create page: form, stage, queue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nicegui import ui
from nicegui.events import GenericEventArguments

from controlplane import forms
from controlplane.backends.base import Backend
from controlplane.components import ParamForm, Queue, Stage
from core.errors import UnknownWorkflow
from core.workflows import workflow, workflows
from core.workflows.base import Workflow


def create_page(backend: Backend, workflow_id: str = "") -> None:
    """Draw the page; "" is the first workflow."""
    try:
        recipe = workflow(workflow_id) if workflow_id else workflows()[0]
    except UnknownWorkflow as error:
        _unknown(error.message)
        return
    with ui.element("div").classes("create"):
        _form(backend, recipe)
        Stage(recipe.id)
        Queue()


def _form(backend: Backend, recipe: Workflow[Any]) -> ParamForm:
    def check(event: GenericEventArguments) -> None:
        asked = event.args
        element.show(_view(backend, recipe, asked["values"], rev=int(asked["rev"])))

    element = ParamForm(
        form=asdict(forms.form_of(recipe, ready_models(backend))),
        view=_view(backend, recipe, {}, rev=0),
        others=[{"id": other.id, "title": other.title} for other in workflows()],
        on_check=check,
    )
    return element


def _view(
    backend: Backend, recipe: Workflow[Any], values: dict[str, Any], *, rev: int
) -> dict[str, Any]:
    return {"rev": rev, **asdict(forms.view_of(recipe, values, ready_models(backend)))}


def ready_models(backend: Backend) -> frozenset[str]:
    """Ids of the models whose weights are where jobs run."""
    return frozenset(model for worker in backend.workers() for model in worker.models)


def _unknown(message: str) -> None:
    with ui.element("div").classes("page"), ui.element("div").classes("nothing"):
        ui.html("<h1>No such workflow</h1>", sanitize=False)
        ui.label(message)
        ui.link("Create", "/").classes("btn primary")
