"""`diffbox ui` and `diffbox worker`: one of the processes of `diffbox up`, alone."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from controlplane import up
from controlplane.cli_up import add_flags, overridden
from controlplane.config import load_settings
from core.config import Env
from core.errors import ConfigError

_TEXTS = {
    "ui": "Start the web page and API alone. Jobs go to the queue at DIFFBOX_VALKEY_URL, or run "
    "in a child process with DIFFBOX_BACKEND=memory.",
    "worker": "Start one worker, which takes jobs from the queue at DIFFBOX_VALKEY_URL. "
    "It runs under DIFFBOX_PYTHON_PATH.",
}


def main(command: str, argv: Sequence[str]) -> int:
    """Become the process; returns only when that fails."""
    parser = argparse.ArgumentParser(
        prog=f"diffbox {command}", allow_abbrev=False, description=_TEXTS[command]
    )
    folders = ["data-dir", "models-dir", "outputs-dir"]
    add_flags(parser, ["host", "port", *folders] if command == "ui" else folders)
    environ = overridden(parser.parse_args(argv), Env().copy())
    settings = load_settings(Env(environ))
    python, module = sys.executable, "controlplane.main"
    if command == "worker":
        python, module = settings.python_path, "handler.pod"
    else:
        up.check_page(settings)
    try:
        os.execvpe(python, [python, "-m", module], environ)
    except OSError as error:
        raise ConfigError(f"DIFFBOX_PYTHON_PATH={python} can't be run: {error}") from error
