"""What the supervisor asks of the operating system: die with me, kill a group, reap an orphan.

Linux does all of it. Elsewhere (a developer's Mac) a child outlives a supervisor that was killed
with SIGKILL; everything else works.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection

from core.parent_death import die_with


def dies_with_parent() -> Callable[[], None]:
    """A `preexec_fn` that has the kernel kill the child when this process dies.

    NOTE: the kernel watches the *thread* that forks, so start children from the main thread.
    """
    parent = os.getpid()

    return lambda: die_with(parent)


def kill_group(pgid: int) -> None:
    """SIGKILL every process of a group; none left is fine."""
    try:
        os.killpg(pgid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # EPERM: only zombies are left (macOS)
        return


def reap_orphans(ours: Collection[int]) -> tuple[int, bool]:
    """Take the exit codes of dead processes that were re-parented to us, as PID 1 must.

    Looks first (WNOWAIT) and leaves the children in `ours` to whoever waits for them.

    Returns:
        How many were reaped, and whether to look again soon: a dead child of ours stands in
        front, and the kernel shows only the first one.
    """
    reaped = 0
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return reaped, False
        if found is None:
            return reaped, False
        if found.si_pid in ours:
            return reaped, True
        os.waitpid(found.si_pid, os.WNOHANG)
        reaped += 1
