"""A running diffbox over its REST API and its WebSocket, for `generate --url` and `jobs`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from controlplane.auth import choose_password
from controlplane.cli_progress import Interrupt, ProgressLine, Shown
from controlplane.config import load_settings
from controlplane.records import JobRecord
from controlplane.up import address
from core.config import Env
from core.errors import BackendUnavailable, DiffboxError, InputRejected, Problem
from core.media.probe import sniff_image
from core.media.video import sniff_video

_SNIFF_BYTES: Final = 64
_TIMEOUT_S: Final = 30.0
_TICK_S: Final = 0.2
"""How soon Ctrl-C is seen while nothing happens."""
_RECONNECT_S: Final = 1.0
_AWAY_S: Final = 60.0
"""A server that is away for so long is given up; the job goes on."""


class ServerRefused(DiffboxError):
    """The server answered with an error; `code` is what it said."""

    def __init__(self, code: str, message: str, *, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message, problems=problems)
        self.code = code  # type: ignore[misc]  # an instance has the server's code


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Where the server is. Its password is no flag: other users can read arguments."""
    parser.add_argument(
        "--url",
        metavar="URL",
        help="address of a running diffbox [DIFFBOX_URL]; its password is taken from "
        "DIFFBOX_TOKEN or DIFFBOX_PASSWORD",
    )


def server_url(args: argparse.Namespace, env: Env) -> str:
    """The address that was given by flag or variable; "" when none was."""
    return args.url or env.text("DIFFBOX_URL")


def server_of(args: argparse.Namespace, env: Env) -> Server:
    """The server that was named, else the one that this computer's settings describe."""
    url = server_url(args, env)
    token = env.text("DIFFBOX_TOKEN") or env.text("DIFFBOX_PASSWORD")
    if url:
        return Server(url, token)
    settings = load_settings(env)
    return Server(address(settings), token or choose_password(settings)[0])


class Server:
    """One running diffbox.

    Args:
        url: http(s)://host:port, what the browser shows.
        token: the password, sent as a bearer token; "" for none.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.url, headers=self._headers, timeout=_TIMEOUT_S)

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> Any:
        """One request and its JSON answer.

        Raises:
            ServerRefused: the server says no.
            BackendUnavailable: it can't be reached.
        """
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise BackendUnavailable(f"{self.url} can't be reached: {error}") from error
        if answer.is_error:
            raise _refused(answer)
        return answer.json() if answer.content else None

    def upload(self, field: str, path: Path) -> str:
        """Send the local file of a parameter; gives the reference to it.

        Raises:
            ServerRefused: it does not take the file; the problem names `field`.
            BackendUnavailable: it can't be reached.
        """
        with path.open("rb") as file:
            head = file.read(_SNIFF_BYTES)
            file.seek(0)
            # A file that is neither goes as some picture, so that the server says what is wrong.
            media_type = sniff_video(head) or sniff_image(head) or "image/*"
            try:
                sent = self.request(
                    "POST",
                    "/api/uploads",
                    params={"filename": path.name},
                    headers={"Content-Type": media_type},
                    content=file,
                )
            except ServerRefused as error:
                if error.code != InputRejected.code:
                    raise
                at_field = (Problem(field=field, message=error.message),)
                raise ServerRefused(error.code, error.message, problems=at_field) from None
        return str(sent["ref"])

    def submit(self, workflow: str, params: Mapping[str, Any], lane: str) -> str:
        """Put a job in; gives its id."""
        path = f"/api/workflows/{workflow}"
        sent = self.request("POST", path, params={"lane": lane}, json=dict(params))
        return str(sent["job_id"])

    def job(self, job_id: str) -> JobRecord:
        """The job as it is now."""
        return JobRecord.model_validate(self.request("GET", f"/api/jobs/{job_id}"))

    def cancel(self, job_id: str) -> JobRecord:
        """Ask for the job's end; gives the job as it is then."""
        return JobRecord.model_validate(self.request("DELETE", f"/api/jobs/{job_id}"))

    def download(self, path: str, target: Path) -> Path:
        """Fetch an output into a local file."""
        try:
            with self._http.stream("GET", path) as answer, target.open("wb") as file:
                if answer.is_error:
                    answer.read()
                    raise _refused(answer)
                for chunk in answer.iter_bytes():
                    file.write(chunk)
        except httpx.HTTPError as error:
            raise BackendUnavailable(f"{self.url}{path} can't be fetched: {error}") from error
        return target

    def follow(
        self, job_id: str, progress: ProgressLine, interrupt: Interrupt, *, cancels: bool
    ) -> JobRecord:
        """Show the job's progress until it has ended; gives it as it ended.

        Args:
            job_id: whose progress.
            progress: where it is shown.
            interrupt: a wish to end ...
            cancels: ... the job; otherwise only the watching.
        """
        heard = time.monotonic()
        while True:
            try:
                record = self.job(job_id)
                heard = time.monotonic()
                if record.finished or (interrupt.asked and not cancels):
                    return record
                self._watch(job_id, progress, interrupt, cancels=cancels)
            except (BackendUnavailable, OSError, WebSocketException) as error:
                if interrupt.asked or time.monotonic() - heard > _AWAY_S:
                    message = f"{self.url} went away, job {job_id} goes on: {error}"
                    raise BackendUnavailable(message) from error
                time.sleep(_RECONNECT_S)

    def _watch(
        self, job_id: str, progress: ProgressLine, interrupt: Interrupt, *, cancels: bool
    ) -> None:
        """Show messages about the job until it ends, or until we shall not watch any longer."""
        asked = False
        url = "ws" + self.url.removeprefix("http") + "/ws"
        with connect(url, additional_headers=self._headers, open_timeout=_TIMEOUT_S) as socket:
            socket.send(json.dumps({"type": "subscribe", "job_ids": [job_id]}))
            while not asked or cancels:
                if interrupt.asked and not asked:
                    asked = True
                    if cancels:
                        self.cancel(job_id)
                try:
                    message = json.loads(socket.recv(timeout=_TICK_S))
                except TimeoutError:
                    continue
                if message.get("job_id") == job_id and _show(message, progress):
                    return
                if message.get("type") == "job:snapshot" and _any_ended(message, job_id):
                    return


def _show(message: Mapping[str, Any], progress: ProgressLine) -> bool:
    """Show one message of the WebSocket; whether it ends the job."""
    kind = message.get("type")
    if kind == "job:progress":
        progress.show(
            Shown(
                stage=message.get("stage_id") or str(message.get("stage", "")),
                step=message.get("step") or 0,
                steps=message.get("steps") or 0,
                fraction=message.get("progress") or 0.0,
                eta_s=message.get("eta_s"),
            )
        )
    elif kind in {"job:queued", "job:requeued"}:
        progress.show(Shown(stage="queued"))
    return kind in {"job:complete", "job:error", "job:cancelled"}


def _any_ended(message: Mapping[str, Any], job_id: str) -> bool:
    records = [JobRecord.model_validate(job) for job in message.get("jobs", ())]
    return any(record.id == job_id and record.finished for record in records)


def _refused(answer: httpx.Response) -> DiffboxError:
    try:
        error = answer.json()["error"]
        code, message = str(error["code"]), str(error["message"])
        problems = tuple(
            Problem(field=str(p["field"]), message=str(p["message"]))
            for p in error.get("problems") or ()
        )
    except (ValueError, KeyError, TypeError):  # not our server, or a proxy in between
        return ServerRefused("http", f"{answer.url} answers with status {answer.status_code}")
    if code == BackendUnavailable.code:
        return BackendUnavailable(message)
    if code == "unauthorized":
        message += " (set DIFFBOX_TOKEN)"
    return ServerRefused(code, message, problems=problems)
