"""The sign-in page: one plain form that needs neither script nor NiceGUI."""

from __future__ import annotations

from html import escape
from typing import Final
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from controlplane.auth import SESSION_S, Sessions, client_address, cookie_name, is_https

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in – diffbox</title>
<link rel="icon" href="/favicon.ico">
<style>
:root {{ color-scheme: light dark; --back: light-dark(#f6f6f8, #101014);
  --card: light-dark(#fff, #1a1a20); --text: light-dark(#1b1b20, #ececf1);
  --soft: light-dark(#5c5c66, #a0a0ab); --line: light-dark(#c9c9d2, #4a4a55);
  --accent: light-dark(#5b4bd6, #a79bff); --on: light-dark(#fff, #14121f);
  --bad: light-dark(#b3261e, #ffb4ab); }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; min-height: 100dvh; display: grid; place-items: center; padding: 16px;
  background: var(--back); color: var(--text); font: 16px/1.5 Inter, system-ui, sans-serif; }}
form {{ width: min(100%, 360px); padding: 32px; border-radius: 16px; background: var(--card);
  border: 1px solid var(--line); }}
h1 {{ margin: 0 0 4px; font-size: 22px; }}
p {{ margin: 0 0 20px; color: var(--soft); font-size: 14px; }}
.bad {{ color: var(--bad); }}
label {{ display: block; font-size: 14px; font-weight: 600; margin-bottom: 6px; }}
input, button {{ width: 100%; min-height: 44px; padding: 0 12px; border-radius: 10px;
  font: inherit; }}
input {{ border: 1px solid var(--line); background: var(--back); color: var(--text); }}
button {{ margin-top: 16px; border: 0; background: var(--accent); color: var(--on);
  font-weight: 600; cursor: pointer; }}
:focus-visible {{ outline: 2px solid var(--accent); outline-offset: 2px; }}
</style>
</head>
<body>
<main>
<form method="post" action="/login">
<h1>diffbox</h1>
{message}
<input type="hidden" name="next" value="{next}">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required
 autofocus aria-describedby="message">
<button type="submit">Sign in</button>
</form>
</main>
</body>
</html>
"""
_WELCOME: Final = '<p id="message">The password is DIFFBOX_PASSWORD, or in the first log.</p>'


def login_router(sessions: Sessions) -> APIRouter:
    """The routes /login and /logout."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    async def form(next: str = "/") -> Response:
        return _page(next, _WELCOME) if not sessions.open else RedirectResponse(_local(next), 303)

    @router.post("/login")
    async def sign_in(request: Request) -> Response:
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        target = fields.get("next", ["/"])[0]
        address = client_address(request.scope)
        wait_s = sessions.wait_s(address)
        if not sessions.password_holds(fields.get("password", [""])[0], address):
            if not wait_s:
                return _page(target, _alert("That is not the password."), 401)
            text = f"Too many wrong passwords. Wait {wait_s} seconds."
            return _page(target, _alert(text), 429, {"retry-after": str(wait_s)})
        response = RedirectResponse(_local(target), 303)
        _set_cookie(response, request, sessions.new_cookie(), SESSION_S)
        return response

    @router.post("/logout")
    async def sign_out(request: Request) -> Response:
        response = RedirectResponse("/login", 303)
        _set_cookie(response, request, "", 0)
        return response

    return router


def _page(
    target: str, message: str, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    html = _PAGE.format(message=message, next=escape(_local(target), quote=True))
    return HTMLResponse(html, status, {"cache-control": "no-store", **(headers or {})})


def _alert(text: str) -> str:
    return f'<p id="message" class="bad" role="alert">{escape(text)}</p>'


def _set_cookie(response: Response, request: Request, value: str, max_age_s: int) -> None:
    response.set_cookie(
        cookie_name(request.scope),
        value,
        max_age=max_age_s,
        path="/",
        httponly=True,
        samesite="lax",
        secure=is_https(request.scope),
    )


def _local(target: str) -> str:
    """A path of ours; anything that could lead elsewhere becomes the first page."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    elsewhere = parts.scheme or parts.netloc or "\\" in target or not target.isprintable()
    return "/" if elsewhere or not target.startswith("/") or target.startswith("//") else target
