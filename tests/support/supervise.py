"""A supervisor over children given as JSON, as a process of its own that tests can kill.

python -m tests.support.supervise '[{"name": "a", "argv": ["sleep", "9"], "ready_file": "/x"}]'
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from controlplane.supervisor import Backoff, Child, StartFailed, Supervisor
from core.logs import log_json_lines


def child_from(values: dict[str, Any]) -> Child:
    ready_file = values.pop("ready_file", None)

    async def ready() -> bool:
        return Path(ready_file).exists()

    return Child(**values, ready=ready if ready_file else None)


def main() -> None:
    log_json_lines()
    children = [child_from(values) for values in json.loads(sys.argv[1])]
    backoff = Backoff(first_s=0.1, longest_s=5, stable_s=10)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        asyncio.run(Supervisor(children, say=say, on_up=lambda: say("up"), backoff=backoff).run())
    except StartFailed as error:
        sys.exit(f"error: {error.message}")


if __name__ == "__main__":
    main()
