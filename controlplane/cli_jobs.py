"""`diffbox jobs`: list, show, cancel or watch the jobs of a running diffbox."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from controlplane import cli, cli_clips
from controlplane.cli_progress import Interrupt, ProgressLine, clock
from controlplane.cli_remote import Server, add_server_flags, server_of
from controlplane.forms import form_of
from controlplane.records import JobRecord
from core.config import Env
from core.errors import UnknownWorkflow
from core.protocol import JobStatus
from core.workflows import workflow

_TITLE_WIDTH = 50


def main(command: str, argv: Sequence[str]) -> int:
    """Do what was asked; 1 when the job that was shown or watched failed."""
    if argv and argv[0] in cli_clips.ACTIONS:
        return cli_clips.main(argv[0], argv[1:])
    parser = _parser(command)
    args = parser.parse_args(argv)
    if args.action != "list" and not args.id:
        parser.error(f"{args.action} needs the ID of a job")
    server = server_of(args, Env())
    if args.action == "list":
        return _list(server, args)
    if args.action == "watch":
        with Interrupt() as interrupt, ProgressLine() as progress:
            record = server.follow(args.id, progress, interrupt, cancels=False)
        if not record.finished:
            return cli.EXIT_INTERRUPTED
    elif args.action == "cancel":
        record = server.cancel(args.id)
    else:
        record = server.job(args.id)
    print(_as_json(record) if args.json else described(record, server.url))
    failed = record.status is JobStatus.FAILED and args.action != "cancel"
    return cli.EXIT_FAILED if failed else 0


def _parser(command: str) -> argparse.ArgumentParser:
    more = [f"  {name:<9} {text}" for name, text in cli_clips.ACTIONS.items()]
    parser = argparse.ArgumentParser(
        prog=f"diffbox {command}",
        allow_abbrev=False,
        description="Jobs of a running diffbox. Ctrl-C ends watching, not the job.",
        epilog="\n".join(["for jobs that make clips:", *more]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action", nargs="?", choices=("list", "show", "cancel", "watch"), default="list"
    )
    parser.add_argument("id", nargs="?", metavar="ID", help="the job")
    statuses = [status.value for status in JobStatus]
    parser.add_argument("--status", choices=statuses, help="list only these")
    parser.add_argument("--limit", type=int, default=20, help="list the newest ones (20)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_server_flags(parser)
    return parser


def _list(server: Server, args: argparse.Namespace) -> int:
    query = {"limit": args.limit} | ({"status": args.status} if args.status else {})
    records = [
        JobRecord.model_validate(job)
        for job in server.request("GET", "/api/jobs", params=query)["jobs"]
    ]
    if args.json:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
        return 0
    for record in records:
        print(row(record))
    if not records:
        print("no jobs")
    return 0


def row(record: JobRecord) -> str:
    """One line of the list: id, status, how far or how long, workflow, title."""
    title = " ".join(_headline(record).split())
    if len(title) > _TITLE_WIDTH:
        title = title[: _TITLE_WIDTH - 1] + "…"
    state = record.status.value
    if record.status is JobStatus.RUNNING:
        state += f" {record.progress.fraction:.0%}"
    return f"{record.id}  {state:<13} {_took(record):>8}  {record.workflow:<8} {title}"


def described(record: JobRecord, url: str) -> str:
    """A job in a few lines, with the addresses of what it made."""
    lines = [row(record)]
    if record.cancel_requested and not record.finished:
        lines.append("  cancel was asked for")
    if record.error:
        lines.append(f"  error: {record.error.message}")
    lines += [f"  {url}{made.url}" for made in record.artifacts]
    lines += [f"  {name}={value!r}" for name, value in record.params.items()]
    return "\n".join(lines)


def _headline(record: JobRecord) -> str:
    """The text that names a job, or the first one of a list of texts."""
    try:
        name = form_of(workflow(record.workflow), ()).headline
    except UnknownWorkflow:  # the server has one that was not named here
        name = "prompt"
    value = record.params.get(name, "")
    return str(value[0] if isinstance(value, list) and value else value)


def _took(record: JobRecord) -> str:
    if record.started_at is None:
        return ""
    end = record.finished_at or datetime.now(UTC)
    return clock((end - record.started_at).total_seconds())


def _as_json(record: JobRecord) -> str:
    return json.dumps(record.model_dump(mode="json"), indent=2)
