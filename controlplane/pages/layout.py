"""The shell around every page: rail (bottom bar on a phone), live corner, and the page itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from nicegui import ui

from controlplane import forms
from controlplane.components import Icon, QueueCount, Shell
from core.workflows import workflows

_LINKS: Final = (
    ("/", "sparkles", "Create"),
    ("/jobs", "list-video", "Jobs"),
    ("/gallery", "images", "Gallery"),
)


def shell(pages: dict[str, Callable[..., None]], *, sign_out: bool) -> None:
    """Draw the shell with the page for the present path inside.

    Args:
        pages: page function by path; `{name}` in a path is an argument of its function.
        sign_out: whether there is somebody to sign out.
    """
    with ui.element("nav").classes("nav").props('aria-label="Main"'):
        with ui.link(target="/").classes("brand").props('aria-label="diffbox"'):
            ui.element("img").props('alt="" width=28 height=28 src="/favicon.ico"')
        links = {path: _link(path, icon, word) for path, icon, word in _LINKS}
    Shell(workflows=_workflow_words(), sign_out=sign_out)
    router = ui.context.client.sub_pages_router
    _mark(links, router.current_path)
    router.on_path_changed(lambda path: _mark(links, path))
    content = ui.sub_pages(dict(pages)).classes("content")
    ui.skip_link("Skip to the page", target=content)


def _link(path: str, icon: str, word: str) -> ui.link:
    with ui.link(target=path) as link:
        Icon(icon)
        ui.label(word)
        if path == "/jobs":
            QueueCount()
    return link


def _mark(links: dict[str, ui.link], path: str) -> None:
    for target, link in links.items():
        link.props["aria-current"] = "page" if _belongs(path, target) else None


def _belongs(path: str, target: str) -> bool:
    path = path.partition("?")[0].rstrip("/") or "/"
    if target == "/":
        return path == "/" or path.startswith("/create/")
    return path == target or path.startswith(f"{target}/")


def _workflow_words() -> dict[str, Any]:
    return {workflow.id: _words(forms.form_of(workflow, ready=())) for workflow in workflows()}


def _words(form: forms.Form) -> dict[str, Any]:
    """What a job of the workflow is called, and which parameters its clips and pictures are."""

    def first(*widgets: str) -> str:
        return next((field.name for field in form.fields if field.widget in widgets), "")

    return {
        "title": form.title,
        "headline": form.headline,
        "texts": first("texts"),
        "clip": first("clip"),
        "pictures": first("images", "image"),
    }
