"""Dying with the parent: the kernel kills this process when the one that started it is gone.

Linux only. Elsewhere (a developer's Mac) a child outlives a parent that was killed with SIGKILL.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
# Loaded here, because `die_with` is also called between fork and exec, where little may run.
_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with(parent_pid: int) -> None:
    """Ask for SIGKILL at the parent's death; called in the child.

    NOTE: the kernel watches the *thread* that forked, so start children from a thread that lives
    as long as they do.
    """
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # died before the call: nobody will send the signal
        os._exit(1)
