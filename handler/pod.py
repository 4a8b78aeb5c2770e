"""The worker of a pod: takes jobs from the Valkey queue and has the engine do them.

python -m handler.pod     settings: handler/config.py, all from the environment

Logs JSON lines to stderr; "ready" comes once the queue answers and the engine is built. SIGTERM
and SIGINT: no new job, a moment for the running one, then it goes back to the queue.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

from core.engine_process import EngineProcess
from core.errors import EX_CONFIG, ConfigError
from core.logs import log_json_lines
from core.queue import Queue
from core.queue_keys import Rules
from handler.agent import Agent
from handler.config import WorkerConfig, from_env

log = logging.getLogger(__name__)


def main() -> None:
    """Work until told to stop."""
    log_json_lines()
    try:
        config = from_env(pid=os.getpid())
        rules = Rules(
            lease_s=config.lease_s,
            max_crashes=config.max_crashes,
            retry_delay_s=config.retry_delay_s,
        )
        queue = Queue.connect(config.valkey_url, rules)
        agent = Agent(config, queue, _engine(config))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.stop())
        agent.serve()
    except ConfigError as error:
        log.error(error.message)
        sys.exit(EX_CONFIG)


def _engine(config: WorkerConfig) -> EngineProcess:
    return EngineProcess(config.engine, grace_s=config.grace_s, stall_s=config.stall_s)


if __name__ == "__main__":
    main()
