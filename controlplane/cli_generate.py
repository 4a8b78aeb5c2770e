"""`diffbox generate`: parameters in, a file out; here, or on a running diffbox.

flags ──> params ──> engine in a child process (or REST of a server) ──> file at --output
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane import cli
from controlplane.cli_flags import add_params, given
from controlplane.cli_local import LocalRunner, Result
from controlplane.cli_progress import Interrupt, ProgressLine, clock
from controlplane.cli_remote import Server, add_server_flags, server_of, server_url
from controlplane.config import load_settings
from core.config import Env
from core.errors import DiffboxError
from core.protocol import LANES, Artifact, Cancelled, Completed, Failed
from core.storage import storage_failed
from core.workflows import register, workflow, workflows
from core.workflows.base import Workflow


class OutputExists(DiffboxError):
    """There is a file already where the output shall go."""

    code = "output_exists"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What was made and where it lies, as --json prints it."""

    artifact: Artifact
    path: Path
    seconds: float


def main(command: str, argv: Sequence[str]) -> int:
    """Make one video or picture."""
    env = Env()
    for added in load_settings(env).workflows:
        register(added)
    args = _parser(command).parse_args(argv)
    chosen = workflow(args.workflow)
    _refuse_to_overwrite(args)
    folder = (args.output or Path.cwd() / "x").absolute().parent
    began = time.monotonic()
    with _storing(folder), ExitStack() as held:
        # Beside the output: so that the finished file is put in place by a rename.
        scratch = tempfile.TemporaryDirectory(dir=folder, prefix=".diffbox-")
        result = _run(args, env, chosen, Path(held.enter_context(scratch)), held)
        if not isinstance(result.event, Completed):
            return _not_completed(result, as_json=args.json)
        artifact = result.event.artifacts[0]
        path = _put(result.file(artifact), args.output or Path(artifact.filename), args.force)
    written = Written(artifact=artifact, path=path, seconds=time.monotonic() - began)
    print(_as_json(result, written) if args.json else _as_text(result, written))
    return 0


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"diffbox {command}",
        allow_abbrev=False,
        description="Make a video or picture, without a server or on the one at --url.",
        epilog="diffbox generate WORKFLOW --help lists the workflow's parameters.",
    )
    chosen = parser.add_subparsers(dest="workflow", metavar="WORKFLOW", required=True)
    for known in workflows():
        sub = chosen.add_parser(
            known.id, help=known.summary, description=known.summary, allow_abbrev=False
        )
        sub.add_argument(
            "-o", "--output", type=Path, metavar="FILE", help="where the result goes (here)"
        )
        sub.add_argument("--force", action="store_true", help="overwrite an existing file")
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        sub.add_argument("--lane", choices=LANES, default="normal", help="with --url (normal)")
        add_server_flags(sub)
        add_params(sub, known)
    return parser


def _run(
    args: argparse.Namespace, env: Env, chosen: Workflow[Any], scratch: Path, held: ExitStack
) -> Result:
    """The job's end; what is needed to fetch its file is `held`."""
    interrupt = Interrupt()
    with ProgressLine(silent=args.json) as progress:
        if not server_url(args, env):
            runner = LocalRunner(load_settings(env), env.copy(), scratch)
            return runner.run(chosen, given(args, chosen, runner.upload), progress, interrupt)
        server = held.enter_context(closing(server_of(args, env)))
        params = given(args, chosen, server.upload)
        job_id = server.submit(chosen.id, params, args.lane)
        with interrupt:
            server.follow(job_id, progress, interrupt, cancels=True)
        return _result(server, job_id, scratch)


def _result(server: Server, job_id: str, scratch: Path) -> Result:
    """A job of the server as if it had run here."""
    record = server.job(job_id)
    event: Completed | Failed | Cancelled = Cancelled(job_id=job_id)
    if record.error:
        event = Failed(job_id=job_id, **record.error.model_dump())
    elif record.artifacts:
        event = Completed(job_id=job_id, artifacts=record.artifacts, metrics=record.metrics)
    return Result(
        job=record.job(),
        event=event,
        file=lambda artifact: server.download(artifact.url, scratch / artifact.filename),
    )


# --- the output ----------------------------------------------------------------------------------


@contextmanager
def _storing(folder: Path) -> Iterator[None]:
    """A full or read-only disk is told in words."""
    try:
        yield
    except OSError as error:
        raise storage_failed(error, folder) from error


def _refuse_to_overwrite(args: argparse.Namespace) -> None:
    path: Path | None = args.output
    if path is None:
        return
    if path.is_dir():
        raise OutputExists(f"{path} is a folder: give a file name (--output)")
    if not path.absolute().parent.is_dir():
        raise OutputExists(f"{path.parent} is not a folder (--output)")
    if path.exists() and not args.force:
        raise OutputExists(f"{path} exists: give another name, or --force")


def _put(source: Path, target: Path, force: bool) -> Path:
    """Move the finished file into place; never over a file that came meanwhile."""
    if force:
        os.replace(source, target)
        return target
    try:
        os.link(source, target)
    except FileExistsError:
        kept = target.with_stem(f"{target.stem}-{int(time.time())}")
        os.replace(source, kept)
        print(f"{target} exists by now; the result is {kept}", file=sys.stderr)
        return kept
    except OSError:  # a file system without hard links
        os.replace(source, target)
    return target


def _as_text(result: Result, written: Written) -> str:
    made = written.artifact
    facts = [f"{made.width} × {made.height}"]
    if made.frames:
        facts.append(f"{made.frames} frames")
    if made.fps:
        facts.append(f"{made.fps:g} frames/s")
    facts += [f"{made.size_bytes / 1e6:.2f} MB", f"seed {result.job.params.get('seed')}"]
    return f"{written.path}\n{', '.join(facts)}, in {clock(written.seconds)}"


def _as_json(result: Result, written: Written) -> str:
    made = written.artifact.model_dump(
        include={"kind", "media_type", "width", "height", "frames", "fps", "size_bytes", "sha256"}
    )
    return json.dumps(
        {
            "status": "completed",
            "path": str(written.path),
            **made,
            "seed": result.job.params.get("seed"),
            "seconds": round(written.seconds, 2),
            "job_id": result.job.id,
            "workflow": result.job.workflow,
            "params": result.job.params,
        },
        indent=2,
    )


def _not_completed(result: Result, *, as_json: bool) -> int:
    event = result.event
    if as_json:
        print(json.dumps({"status": event.type, **event.model_dump(exclude={"type"}, mode="json")}))
    if not isinstance(event, Failed):
        print("cancelled", file=sys.stderr)
        return cli.EXIT_INTERRUPTED
    flag = f" (--{event.field.replace('_', '-')})" if event.field else ""
    print(f"error: {event.message}{flag}", file=sys.stderr)
    return cli.exit_code(event.code)
