"""One JSON object a line on stderr, for machines; what people read goes to stdout instead.

log.info("exited", extra={"child": "worker-1", "code": -9})
{"at": "2026-01-31T12:00:00.000Z", "level": "info", "event": "exited", "child": "worker-1", …}
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

# What every LogRecord has; the rest was given as `extra`.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one line of JSON, its `extra` as fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without the line break."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _OWN})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def log_json_lines(level: int = logging.INFO) -> None:
    """Send this process's log to stderr as JSON lines; replaces what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=level, force=True)
