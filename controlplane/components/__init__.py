"""Vue islands: what is live or long on a page, each with its own data over our WebSocket or REST.

The JavaScript beside this file draws them; what they share lies in static/lib and is the module
"diffbox" of the page's import map.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from nicegui import ui
from nicegui.dependencies import register_esm
from nicegui.events import GenericEventArguments, Handler

LIB: Final = Path(__file__).parent.parent / "static" / "lib"

# Not by `esm=` of a class: that takes the folder's own time, which an edited file does not change,
# and browsers keep the address for a year.
register_esm("diffbox", LIB, max_time=max(path.stat().st_mtime for path in LIB.rglob("*")))


class Icon(ui.element, component="icon.js"):
    """A decorative icon; `name` is an id in static/icons.svg."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.props["name"] = name


class Shell(ui.element, component="shell.js"):
    """Connection, worker, theme, sign out; also starts the page's WebSocket.

    Args:
        workflows: id -> title, and the names of the parameters that all pages know: headline,
            texts, clip, pictures.
        sign_out: whether there is somebody to sign out.
    """

    def __init__(self, *, workflows: dict[str, Any], sign_out: bool) -> None:
        super().__init__()
        self.props["workflows"] = workflows
        self.props["sign-out"] = sign_out


class QueueCount(ui.element, component="queue_count.js"):
    """How many jobs wait or run; nothing when there are none."""


class ParamForm(ui.element, component="param_form.js"):
    """The form of a workflow.

    Args:
        form: a `forms.Form` as a dict.
        view: a `forms.FormView` as a dict, with `rev` 0.
        others: id and title of each workflow.
        on_check: called with {rev, values} after changes; answers by `show`.
    """

    def __init__(
        self,
        *,
        form: dict[str, Any],
        view: dict[str, Any],
        others: list[dict[str, str]],
        on_check: Handler[GenericEventArguments],
    ) -> None:
        super().__init__()
        self.props["form"] = form
        self.props["view"] = view
        self.props["others"] = others
        self.on("check", on_check)

    def show(self, view: dict[str, Any]) -> None:
        """Bring the form into this state; `rev` names the change that it answers."""
        self.props["view"] = view


class Stage(ui.element, component="stage.js"):
    """The job that is looked at, from its place in the queue to its video."""

    def __init__(self, workflow: str) -> None:
        super().__init__()
        self.props["workflow"] = workflow


class Queue(ui.element, component="queue.js"):
    """Jobs that wait and run, then the latest ones."""


class JobPage(ui.element, component="job_page.js"):
    """All about one job. `titles`: workflow id -> parameter -> title, unit, labels, widget."""

    def __init__(self, job_id: str, *, titles: dict[str, Any]) -> None:
        super().__init__()
        self.props["job-id"] = job_id
        self.props["titles"] = titles


class JobsTable(ui.element, component="jobs_table.js"):
    """All jobs by pages, with a filter by status."""


class Gallery(ui.element, component="gallery.js"):
    """What was made, as a wall of posters."""
