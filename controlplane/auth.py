"""The guard before everything: who may speak to us, from where, and how much they may send.

    host known? ──> same origin? ──> signed in? ──> body small enough? ──> app ──> safe headers
       421              403             401              413

Pure ASGI, so that it stands before WebSockets too: NiceGUI's socket, ours, and plain HTTP. With
no password (loopback only) everybody who passes the first two is signed in.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.config import Settings
from core.errors import ConfigError

log = logging.getLogger(__name__)

SESSION_S: Final = 14 * 86_400
FAILURES_MAX: Final = 10
"""Wrong passwords from one address within FAILURES_S, before it has to wait."""
FAILURES_S: Final = 60.0
_ADDRESSES_MAX: Final = 1000
PASSWORD_MIN: Final = 8

BODY_MAX: Final = 1_000_000
"""Bytes of a request body, where no route needs more."""
SIGNED_IN: Final = "diffbox.signed_in"
"""Key of the ASGI scope: whether the request came with credentials."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PUBLIC: Final = frozenset({"/login", "/api/health", "/favicon.ico"})
_PUBLIC_FOLDER: Final = "/static/"
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # unsafe-inline and unsafe-eval: NiceGUI compiles its templates in the browser.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
        "font-src 'self' data:; connect-src 'self' ws: wss:; object-src 'none'; "
        "base-uri 'none'; frame-ancestors 'self'; form-action 'self'"
    ),
}


def keep_secret(path: Path, make: Callable[[], str]) -> tuple[str, bool]:
    """A secret in a file that only we may read; made when it is not there yet, or damaged.

    Returns:
        The secret, and whether it was made now.

    Raises:
        ConfigError: the file can't be read or made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            kept = path.read_bytes().strip()
            if kept and all(0x20 <= byte < 0x7F for byte in kept):
                return kept.decode("ascii"), False
            log.warning("%s is empty or damaged, so its secret is made anew", path)
        secret = make()
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="ascii") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise ConfigError(f"DIFFBOX_DATA_DIR: {path} can't be used: {error.strerror}") from error
    return secret, True


def choose_password(settings: Settings) -> tuple[str, bool]:
    """The password that opens the page; "" where only this computer can connect and none is set.

    Returns:
        The password, and whether it was made now and has to be shown to the user.

    Raises:
        ConfigError: it is too short for a page that others can reach.
    """
    if settings.loopback:
        return settings.password, False
    if settings.password:
        password, made_now, source = settings.password, False, "DIFFBOX_PASSWORD"
    else:
        path = settings.data_dir / "auth" / "password"
        password, made_now = keep_secret(path, lambda: secrets.token_urlsafe(18))
        source = f"the password in {path}"
    if len(password) < PASSWORD_MIN:
        raise ConfigError(
            f"{source} has {len(password)} characters; "
            f"a page that others can reach needs at least {PASSWORD_MIN}"
        )
    return password, made_now


@dataclass(slots=True)
class Sessions:
    """Passwords, cookies, and who guessed too often."""

    password: str
    key: str
    clock: Callable[[], float] = time.time
    _failures: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)

    @property
    def open(self) -> bool:
        """Whether there is no password."""
        return not self.password

    def new_cookie(self) -> str:
        """A cookie's value: when it expires, and our signature."""
        expires = str(int(self.clock() + SESSION_S))
        return f"{expires}.{self._signature(expires)}"

    def cookie_holds(self, value: str) -> bool:
        """Whether we signed it and it has not expired."""
        expires, _, signature = value.partition(".")
        return (
            hmac.compare_digest(signature.encode(), self._signature(expires).encode())
            and expires.isdecimal()
            and int(expires) > self.clock()
        )

    def password_holds(self, candidate: str, address: str) -> bool:
        """Whether it is the password; a wrong one is counted against the address.

        The right one holds even while the address has to wait: behind a proxy all share one.
        """
        if hmac.compare_digest(candidate.encode(), self.password.encode()):
            return True
        if self.wait_s(address):
            return False
        failures = self._failures.setdefault(address, deque(maxlen=FAILURES_MAX))
        failures.append(self.clock())
        self._failures.move_to_end(address)
        while len(self._failures) > _ADDRESSES_MAX:
            self._failures.popitem(last=False)
        return False

    def wait_s(self, address: str) -> int:
        """How long the address has to wait before it may try again; 0 is not at all."""
        failures = self._failures.get(address)
        if failures is None or len(failures) < FAILURES_MAX:
            return 0
        return max(0, int(failures[0] + FAILURES_S - self.clock() + 0.999))

    def _signature(self, text: str) -> str:
        # With the password in it, a new password ends all sessions.
        key = hashlib.sha256(f"{self.key}\0{self.password}".encode()).digest()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


class Guard:
    """ASGI middleware; the outermost one.

    Args:
        app: what it guards.
        settings: which hosts we are reached under.
        sessions: who is signed in.
        body_limits: largest body by the beginning of a path; the first match counts.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        sessions: Sessions,
        body_limits: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self._app = app
        self._is_known_host = settings.is_known_host
        self._public_hosts = frozenset(settings.public_hosts)
        self._sessions = sessions
        self._body_limits = body_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with limits and headers."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            limited = _limited(receive, self._body_max(scope["path"]))
            await self._app(scope, limited, _safe(scope["path"], send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = _hostname(headers.get("host", ""))
        if not self._is_known_host(host):
            message = f"this diffbox is not known as {host[:200]!r}: see DIFFBOX_PUBLIC_HOSTS"
            return error_response(421, "unknown_host", message)
        if not self._same_origin(scope, headers):
            return error_response(403, "cross_origin", "requests from other sites are refused")
        signed_in = self._signed_in(scope, headers)
        if signed_in is None:
            return _too_often(self._sessions.wait_s(client_address(scope)))
        scope[SIGNED_IN] = signed_in
        path: str = scope["path"]
        if not signed_in and path not in _PUBLIC and not path.startswith(_PUBLIC_FOLDER):
            return _sign_in_first(scope, headers)
        if scope["type"] == "http" and _declared_length(headers) > self._body_max(path):
            return _too_large(self._body_max(path))
        return None

    def _same_origin(self, scope: Scope, headers: Headers) -> bool:
        """Whether a browser sent it from a page of ours, or no browser sent it."""
        site = headers.get("sec-fetch-site", "none")
        if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
            # Links from elsewhere may lead here; pictures, scripts and fetches may not.
            return site in {"none", "same-origin"} or headers.get("sec-fetch-mode") == "navigate"
        if site not in {"none", "same-origin"}:
            return False
        origin = headers.get("origin")
        if origin is None:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        # A proxy may give us another Host than the browser sees; then its own name must be listed.
        return bool(parts.netloc) and (
            parts.netloc.lower() == headers["host"].lower() or parts.hostname in self._public_hosts
        )

    def _signed_in(self, scope: Scope, headers: Headers) -> bool | None:
        """Whether the request has credentials; None when its sender has to wait."""
        if self._sessions.open:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            address = client_address(scope)
            waits = self._sessions.wait_s(address) > 0
            holds = self._sessions.password_holds(token.strip(), address)
            return None if waits and not holds else holds
        cookie = _cookie(headers.get("cookie", ""), cookie_name(scope))
        return cookie is not None and self._sessions.cookie_holds(cookie)

    def _body_max(self, path: str) -> int:
        found = (limit for start, limit in self._body_limits if path.startswith(start))
        return next(found, BODY_MAX)


def is_https(scope: Scope) -> bool:
    """Whether the browser came over https; behind a proxy it says so."""
    forwarded = Headers(scope=scope).get("x-forwarded-proto", "")
    return scope.get("scheme") in {"https", "wss"} or forwarded.split(",")[0].strip() == "https"


def cookie_name(scope: Scope) -> str:
    """The session cookie's name; with the port, because browsers share cookies between ports.

    __Host- has the browser refuse one that another site of the same domain has set.
    """
    if is_https(scope):
        return "__Host-diffbox"
    server = scope.get("server") or ("", 0)
    return f"diffbox-{server[1]}"


def client_address(scope: Scope) -> str:
    """Who connects; behind a proxy, the proxy."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def error_response(
    status: int, code: str, message: str, *, retryable: bool = False, problems: Any = ()
) -> Response:
    """The API's one shape of errors."""
    body = {
        "code": code,
        "message": message,
        "retryable": retryable,
        "problems": [{"field": p.field, "message": p.message} for p in problems],
    }
    return _Json({"error": body}, status)


class _Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host else ""
    except ValueError:
        return ""


def _cookie(header: str, name: str) -> str | None:
    try:
        morsel = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return morsel.value if morsel else None


def _declared_length(headers: Headers) -> int:
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _too_large(limit: int) -> Response:
    return error_response(
        413, "input_rejected", f"the request is too large: at most {limit // 1_000_000} MB"
    )


def _too_often(wait_s: int) -> Response:
    response = error_response(
        429, "too_many_attempts", f"too many wrong passwords; wait {wait_s} s", retryable=True
    )
    response.headers["retry-after"] = str(wait_s)
    return response


def _sign_in_first(scope: Scope, headers: Headers) -> Response:
    if (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and "text/html" in headers.get("accept", "")
    ):
        query = scope["query_string"].decode("latin-1")
        target = f"{scope['path']}?{query}" if query else scope["path"]
        return RedirectResponse(f"/login?next={quote(target, safe='')}", 303)
    response = error_response(401, "unauthorized", "sign in, or send Authorization: Bearer …")
    response.headers["www-authenticate"] = "Bearer"
    return response


async def _refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("cache-control", "no-store")
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008})
            return
    await response(scope, receive, send)


def _limited(receive: Receive, limit: int) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"the request is too large: at most {limit // 1_000_000} MB")
        return message

    return limited


def _safe(path: str, send: Send) -> Send:
    async def safe(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if path.startswith("/api/"):
                headers.setdefault("cache-control", "no-store")
        await send(message)

    return safe
