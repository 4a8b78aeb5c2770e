"""The pages of the control plane, mounted into its FastAPI app.

    /  /create/{workflow}    form, stage, queue
    /jobs  /jobs/{job_id}    all jobs, one job
    /gallery                 what was made

Only the shell, the form's state and what stands on a page come from here; all that is live is
drawn by the islands in `controlplane.components`.
"""

from __future__ import annotations

from fastapi import FastAPI
from nicegui import ui

from controlplane.pages import assets
from controlplane.pages.gallery import gallery_page
from controlplane.pages.generate import create_page
from controlplane.pages.job import job_page, jobs_page
from controlplane.pages.layout import shell
from controlplane.services import Services

RECONNECT_S = 60.0
"""A browser that comes back within this time finds its page as it was."""


def register_pages(app: FastAPI, services: Services) -> None:
    """Register the pages and mount NiceGUI into `app`, which must have all its own routes."""
    backend = services.backend

    def root() -> None:
        shell(
            {
                "/": lambda: create_page(backend),
                "/create/{workflow}": lambda workflow: create_page(backend, workflow),
                "/jobs": jobs_page,
                "/jobs/{job_id}": job_page,
                "/gallery": gallery_page,
            },
            sign_out=bool(services.settings.password),
        )

    for path in ("/", "/create/{_}", "/jobs", "/jobs/{_}", "/gallery"):
        ui.page(path)(root)
    assets.serve(app)
    ui.run_with(
        app,
        title="diffbox",
        favicon=assets.FOLDER / "favicon.svg",
        dark=None,
        language="en-US",
        reconnect_timeout=RECONNECT_S,
        binding_refresh_interval=None,
        show_welcome_message=False,
        tailwind=False,
    )
