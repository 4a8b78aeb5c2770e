"""Steering: what may still be changed of a job's clips, and how a job goes on from another one.

    PlanChange   ──changed──>   Plan   ──> Jobs.steer      of what has not begun
    Continuation ──continued──> params ──> Jobs.submit     a new job that keeps clips of the old

Clips are counted over the whole video, also where a job made only the later ones of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from controlplane.checks import clip_field, no_such_clip
from controlplane.jobs import Jobs
from controlplane.records import JobRecord
from core.errors import Conflict, DiffboxError, InvalidParams, Problem
from core.protocol import Plan, Steered
from core.workflows import workflow
from core.workflows.base import Workflow

PROMPTS_MAX: Final = 1000
"""Of one plan, and clips where their number is given; an endless job may make more."""
PROMPT_MAX: Final = 10_000
"""Characters."""
_NAMED_MAX: Final = 5
"""So many clips are named one by one in a message."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PlanChange(_Body):
    """A change of a plan that is at `rev`. What is left out stays as it is."""

    rev: int
    prompts: list[str] = []
    """All of them, from the job's first clip on; those of clips that have begun must stay."""
    num_clips: int | None = None
    """How many clips the job makes; null: until it is told to finish."""
    finish: bool = False
    """End after the clip that is being made."""


class Continuation(_Body):
    """A new job that keeps the clips up to `after`, counted over the whole video; -1 keeps none.

    `params` are laid over those of the job that it goes on from.
    """

    after: Annotated[int, Field(ge=-1)]
    params: dict[str, Any] = {}


async def steer(jobs: Jobs, job_id: str, change: PlanChange) -> JobRecord:
    """Change the plan of a job that has not ended; gives its record with the new plan.

    Raises:
        NotFound: no such job.
        InvalidParams: it makes no clips, or this can't be changed (any more).
        Conflict: it has ended, or its plan is not at `change.rev` any more.
        BackendUnavailable: the backend can't be reached; nothing was changed.
    """
    record = jobs.get(job_id)
    plan = _steerable(record)
    if change.rev != plan.rev:
        raise await _stale(jobs, record, change.rev)
    reply = await jobs.steer(job_id, changed(record, plan, change), plan.rev)
    record = jobs.get(job_id)
    if reply == "stale":  # somebody was quicker, and we have not heard of it yet
        raise await _stale(jobs, record, change.rev)
    if reply != "steered":
        raise _ended(record.id, reply)
    return record


async def go_on(jobs: Jobs, job_id: str, wish: Continuation) -> JobRecord:
    """Submit a job that keeps clips of another one and makes those after them (anew).

    Raises:
        NotFound: no such job.
        InvalidParams: its workflow can't, it has no such clip, or a param is wrong.
        DiffboxError: as `Jobs.submit`.
    """
    record = jobs.get(job_id)
    params = continued(record, workflow(record.workflow), wish)
    return await jobs.submit(record.workflow, params, record.lane)


# --- a change of the plan ------------------------------------------------------------------------


def changed(record: JobRecord, plan: Plan, change: PlanChange) -> Plan:
    """The plan after a change.

    Raises:
        InvalidParams: with one Problem a rejected value.
    """
    sent = change.model_fields_set - {"rev"}
    if not sent:
        raise InvalidParams("there is nothing to change: send prompts, num_clips or finish")
    update = {name: getattr(change, name) for name in sent}
    if "prompts" in sent:
        update["prompts"] = tuple(change.prompts)
    wanted = plan.model_copy(update={**update, "rev": plan.rev + 1})
    problems: list[Problem] = []
    if "prompts" in sent:
        problems += _of_prompts(record, plan, wanted)
    if "num_clips" in sent:
        problems += _of_num_clips(record, wanted)
    if not problems:
        problems += _of_both(wanted, "prompts" if "prompts" in sent else "num_clips")
    if problems:
        raise InvalidParams("; ".join(p.message for p in problems), problems=tuple(problems))
    return wanted


def _of_prompts(record: JobRecord, plan: Plan, wanted: Plan) -> Iterator[Problem]:
    def problem(text: str) -> Problem:
        return Problem(field="prompts", message=f"prompts: {text}")

    if not 1 <= len(wanted.prompts) <= PROMPTS_MAX:
        yield problem(f"{len(wanted.prompts)} prompts: send 1 to {PROMPTS_MAX}")
        return
    for number, prompt in enumerate(wanted.prompts, start=1):
        if not prompt.strip():
            yield problem(f"number {number} is blank: say what happens in the clip")
        elif len(prompt) > PROMPT_MAX:
            yield problem(f"number {number} is longer than {PROMPT_MAX} characters")
    made = {clip.index: clip.prompt for clip in record.clips}
    free = record.next_clip
    for index in range(plan.first, free):
        if wanted.prompt(index) not in (plan.prompt(index), made.get(index)):
            state = "is made" if index in made else "is being made"
            yield problem(
                f"clip {index} {state}, so its prompt can't be changed any more; "
                f"the first that can is that of clip {free}"
            )
            return


def _of_num_clips(record: JobRecord, wanted: Plan) -> Iterator[Problem]:
    number = wanted.num_clips
    low = max(1, record.next_clip - wanted.first)
    high = max(low, PROMPTS_MAX)
    if number is not None and not low <= number <= high:
        begun = f"; {low} are made or being made" if low > 1 else ""
        text = f"must be from {low} to {high}, or null for no end{begun}"
        yield Problem(field="num_clips", message=f"num_clips={number} {text}")


def _of_both(wanted: Plan, field: str) -> Iterator[Problem]:
    prompts, clips = len(wanted.prompts), wanted.num_clips
    if clips is not None and prompts > clips:
        text = f"{prompts} prompts for {clips} clips: leave some out, or set num_clips to {prompts}"
        yield Problem(field=field, message=f"{field}: {text}")


def _steerable(record: JobRecord) -> Plan:
    if record.plan is None:
        raise InvalidParams(
            f"job {record.id} has no plan to change: workflow {record.workflow!r} makes no clips"
        )
    if record.finished:
        raise _ended(record.id, record.status.value)
    return record.plan


def _ended(job_id: str, status: str) -> Conflict:
    return Conflict(f"job {job_id} has ended ({status}), so its plan can't be changed any more")


async def _stale(jobs: Jobs, record: JobRecord, rev: int) -> Conflict:
    """Says what was changed since, as far as the plan at `rev` is still known."""
    plans = {record.plan.rev: record.plan} if record.plan else {}
    with suppress(DiffboxError):
        if rev == 0:
            recipe = workflow(record.workflow)
            plans[0] = recipe.plan(recipe.read(record.params)) or plans[0]
        told = [stored.event for stored in await jobs.events(record.id)]
        plans |= {event.plan.rev: event.plan for event in told if isinstance(event, Steered)}
    now = plans[max(plans)]
    since = f": {difference(plans[rev], now)}" if rev in plans and rev < now.rev else ""
    return Conflict(
        f"the plan of job {record.id} is at rev {now.rev}, not {rev}{since}; read it again"
    )


def difference(before: Plan, after: Plan) -> str:
    """What was changed from one plan to another, in words."""
    end = after.first + max(len(before.prompts), len(after.prompts))
    others = [i for i in range(after.first, end) if before.prompt(i) != after.prompt(i)]
    said = []
    if others:
        said.append(
            f"other prompts from clip {others[0]} on"
            if len(others) > _NAMED_MAX
            else f"another prompt for {_clips(others)}"
        )
    if before.num_clips != after.num_clips:
        said.append(f"num_clips is {_number(after.num_clips)}, was {_number(before.num_clips)}")
    if before.finish != after.finish:
        said.append("it shall finish" if after.finish else "it shall not finish yet")
    return ", ".join(said) or "nothing that differs"


def _clips(indexes: Iterable[int]) -> str:
    return "clip " + ", ".join(map(str, indexes))


def _number(num_clips: int | None) -> str:
    return "endless" if num_clips is None else str(num_clips)


# --- a job that goes on from another one ---------------------------------------------------------


def continued(record: JobRecord, recipe: Workflow[Any], wish: Continuation) -> dict[str, Any]:
    """The params of a job that keeps the clips of `record` up to `wish.after`.

    They are the job's own, with what its plan still wants after that clip. The seed is left out,
    so that a new one is chosen: the same one would make the same clip again.

    Raises:
        InvalidParams: the workflow can't go on from a clip, or there is no such clip.
    """
    field = clip_field(recipe.params)
    if record.plan is None or field is None:
        raise InvalidParams(
            f"job {record.id} can't be continued: workflow {record.workflow!r} makes no clips"
        )
    if field in wish.params:
        message = f"{field} follows from `after`: leave it out"
        raise InvalidParams(message, problems=(Problem(field=field, message=message),))
    kept = [clip.index for clip in record.clips]
    if wish.after >= 0 and wish.after not in kept:
        message = f"after={wish.after}: {no_such_clip(record, wish.after)}"
        raise InvalidParams(message, problems=(Problem(field="after", message=message),))
    if unknown := [i for i in range(wish.after + 1, record.plan.first) if i not in kept]:
        message = f"after={wish.after}: {no_such_clip(record, unknown[0])}"
        raise InvalidParams(message, problems=(Problem(field="after", message=message),))
    where = {} if wish.after < 0 else {field: f"clip:{record.id}/{wish.after}"}
    own = {name: value for name, value in record.params.items() if name not in ("seed", field)}
    return own | recipe.planned(rest(record, record.plan, wish.after)) | where | wish.params


def rest(record: JobRecord, plan: Plan, after: int) -> Plan:
    """What is left of a plan after a clip. When nothing is: as many clips as it had before.

    A clip that is made has the prompt that it was made from; that of one before `plan.first`, from
    the job that this one went on from, is known only so.
    """
    first = after + 1
    made = {clip.index: clip.prompt for clip in record.clips}
    end = max(plan.first + len(plan.prompts), first + 1)
    known = [made[i] if i in made else plan.prompt(i) for i in range(first, end)]
    left = None if plan.end is None else plan.end - first
    num_clips = left if left is None or left > 0 else plan.num_clips
    return Plan(prompts=tuple(known), num_clips=num_clips, first=first)
