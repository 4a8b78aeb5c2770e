"""`diffbox jobs` for jobs that make clips: show and change their prompts, go on, make again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final

from controlplane.cli_flags import add_params, given
from controlplane.cli_remote import Server, ServerRefused, add_server_flags, server_of
from controlplane.config import load_settings
from controlplane.records import JobRecord
from core.config import Env
from core.errors import Conflict, InvalidParams
from core.protocol import Plan
from core.workflows import register, workflow

ACTIONS: Final = {
    "prompts": "show the clips that are made, and the prompts of those that come",
    "steer": "change prompts of clips that have not begun, how many there are, or the end",
    "continue": "start a job that keeps clips of this one and goes on after them",
    "again": "start a job that keeps the clips before one, and makes it and the rest again",
}
_CHANGES: Final = ("prompts", "steer")
"""Actions on the job itself; the others start a new one."""


def main(action: str, argv: Sequence[str]) -> int:
    """Do what was asked and say what came of it."""
    env = Env()
    for added in load_settings(env).workflows:
        register(added)
    parser = _parser(action)
    if not argv or argv[0].startswith("-"):
        parser.parse_args(argv)
        parser.error("the ID of the job comes first")
    server = _server(argv, env)
    record = server.job(argv[0])
    if action in ("continue", "again"):
        recipe = workflow(record.workflow)
        add_params(parser, recipe)
        args = parser.parse_args(argv)
        params = given(args, recipe, server.upload)
        answer = server.request(
            "POST",
            f"/api/jobs/{record.id}/continue",
            json={"after": _after(args, record), "params": params},
        )
        print(answer["job_id"])
        return 0
    args = parser.parse_args(argv)
    if action == "steer":
        record = steered(server, record, args)
    print("\n".join(rows(record)))
    return 0


def _parser(action: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"diffbox jobs {action} ID",
        usage="%(prog)s [options]",
        allow_abbrev=False,
        description=ACTIONS[action],
        epilog="" if action in _CHANGES else "After an ID, --help lists the job's parameters, too.",
    )
    parser.add_argument("id", metavar="ID", help="the job")
    if action == "steer":
        parser.add_argument(
            "--append", action="append", default=[], metavar="TEXT", help="one more clip at the end"
        )
        parser.add_argument(
            "--change", action="append", default=[], nargs=2, metavar=("INDEX", "TEXT"),
            help="another prompt for a clip, counted from 0 over the whole video",
        )  # fmt: skip
        parser.add_argument(
            "--drop", action="append", default=[], type=int, metavar="INDEX",
            help="leave a coming clip out",
        )  # fmt: skip
        parser.add_argument("--num-clips", type=int, metavar="N", help="how many clips it makes")
        parser.add_argument(
            "--finish", action="store_true", help="end after the clip that is being made"
        )
    elif action == "continue":
        parser.add_argument(
            "--after", type=int, metavar="INDEX", help="the last clip to keep (the last one made)"
        )
    elif action == "again":
        parser.add_argument("--clip", type=int, required=True, metavar="INDEX", help="which clip")
    add_server_flags(parser)
    return parser


def _server(argv: Sequence[str], env: Env) -> Server:
    """The server, before all flags are known: some are parameters of the job's workflow."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_server_flags(parser)
    return server_of(parser.parse_known_args(argv)[0], env)


def _after(args: argparse.Namespace, record: JobRecord) -> int:
    if hasattr(args, "clip"):
        return int(args.clip) - 1
    if args.after is not None:
        return int(args.after)
    if not record.clips:
        raise InvalidParams(f"job {record.id} has no clip yet to go on from")
    return record.clips[-1].index


def steered(server: Server, record: JobRecord, args: argparse.Namespace) -> JobRecord:
    """The job after the change; when somebody else was quicker, on top of theirs."""
    try:
        return _patched(server, record, args)
    except ServerRefused as error:
        if error.code != Conflict.code:
            raise
        return _patched(server, server.job(record.id), args)


def _patched(server: Server, record: JobRecord, args: argparse.Namespace) -> JobRecord:
    if record.plan is None:
        raise InvalidParams(f"job {record.id} makes no clips: there is nothing to steer")
    body = {"rev": record.plan.rev, **change(record.plan, args)}
    return JobRecord.model_validate(
        server.request("PATCH", f"/api/jobs/{record.id}/plan", json=body)
    )


def change(plan: Plan, args: argparse.Namespace) -> dict[str, Any]:
    """What the flags make of a plan, as the API takes it.

    Raises:
        InvalidParams: an index that is none of a prompt.
    """
    body: dict[str, Any] = {}
    if args.append or args.change or args.drop:
        wanted, num_clips = list(plan.prompts), plan.num_clips
        # The last prompt goes on for the clips after it: only then is each clip's own there.
        dropped = set(args.drop)
        named = [*dropped, *(_number(index) for index, _ in args.change)]
        end = max([plan.first - 1, *named]) + 1 - plan.first
        if args.append and num_clips is not None:
            end = max(end, num_clips)
        wanted += [wanted[-1]] * (end - len(wanted))
        for index, text in args.change:
            wanted[_place(plan, _number(index), len(wanted))] = text
        for index in sorted(dropped, reverse=True):
            del wanted[_place(plan, index, len(wanted))]
        wanted += args.append
        body["prompts"] = wanted
        if num_clips is not None:
            body["num_clips"] = num_clips + len(args.append) - len(dropped)
    if args.num_clips is not None:
        body["num_clips"] = args.num_clips
    if args.finish:
        body["finish"] = True
    return body


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidParams(f"{text!r} is not the number of a clip (--change)") from None


def _place(plan: Plan, index: int, count: int) -> int:
    if not plan.first <= index < plan.first + count:
        last = plan.first + count - 1
        raise InvalidParams(f"clip {index} is none of this job's: they are {plan.first} to {last}")
    return index - plan.first


def rows(record: JobRecord) -> list[str]:
    """One line a clip: made, being made, or coming; then how it ends."""
    plan = record.plan
    if plan is None:
        return [f"job {record.id} makes no clips"]
    made = {clip.index: clip for clip in record.clips}
    now = record.progress.clip if not record.finished else None
    end = plan.end if plan.end is not None else max(plan.first + len(plan.prompts), len(made) + 1)
    lines = []
    for index in range(end):
        if index in made:
            lines.append(_row(index, "made", made[index].prompt, f"seed {made[index].seed}"))
        elif not record.finished and index >= plan.first:
            state = "now" if index == now else "coming"
            if state == "now" or not plan.finish:
                lines.append(_row(index, state, plan.prompt(index), ""))
    if plan.end is None and not plan.finish and not record.finished:
        lines.append("     and on, until it is told to finish")
    if plan.finish and not record.finished:
        lines.append("     it ends after the clip that is being made")
    return lines


def _row(index: int, state: str, prompt: str, more: str) -> str:
    text = " ".join(prompt.split())
    return f"{index:4d} {state:<7}{text}{f'  ({more})' if more else ''}"
