"""The stylesheets, font, icons and favicon under an address that changes with their content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from nicegui import ui
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER: Final = Path(__file__).parent.parent / "static"
_STYLES: Final = ("diffbox", "fields", "clips")
_FOREVER: Final = "public, max-age=31536000, immutable"

# Before the first paint, so that a chosen theme does not flash in the other one.
_THEME: Final = (
    "<script>document.documentElement.dataset.theme = "
    'localStorage.getItem("diffbox.theme") || "system"</script>'
)


class _Immutable(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code == 200:
            response.headers["Cache-Control"] = _FOREVER
        return response


def serve(app: FastAPI) -> None:
    """Serve the static files from `app` and name them in the head of every page."""
    base = f"/static/{_digest()}"

    @app.get("/favicon.ico", include_in_schema=False)
    @app.get("/static/favicon.svg", include_in_schema=False)
    async def favicon() -> FileResponse:
        return FileResponse(FOLDER / "favicon.svg", media_type="image/svg+xml")

    app.mount(base, _Immutable(directory=FOLDER), name="static")
    styles = (f'<link rel="stylesheet" href="{base}/{name}.css">' for name in _STYLES)
    ui.add_head_html(
        f'<meta name="diffbox-static" content="{base}">'
        '<meta name="theme-color" content="#0b0b0e">'
        f'<link rel="preload" as="font" type="font/woff2" crossorigin href="{base}/inter.woff2">'
        f"{''.join(styles)}{_THEME}",
        shared=True,
    )


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(FOLDER.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
