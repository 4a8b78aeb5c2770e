"""`diffbox up`: the whole of diffbox on this computer, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from controlplane import up
from controlplane.config import load_settings
from core.config import Env
from core.logs import log_json_lines

# flag -> (variable, metavar, help)
FLAGS: Final[dict[str, tuple[str, str, str]]] = {
    "host": ("DIFFBOX_HOST", "ADDRESS", "address to listen on (127.0.0.1)"),
    "port": ("DIFFBOX_PORT", "PORT", "TCP port of the page (8080); 0 takes a free one"),
    "data-dir": ("DIFFBOX_DATA_DIR", "FOLDER", "jobs, uploads, queue (./data)"),
    "models-dir": ("DIFFBOX_MODELS_DIR", "FOLDER", "weights (./models)"),
    "outputs-dir": ("DIFFBOX_OUTPUTS_DIR", "FOLDER", "finished videos and pictures (./outputs)"),
    "workers": ("DIFFBOX_WORKER_COUNT", "N", "how many jobs run at the same time, one a GPU (1)"),
}


def add_flags(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Flags that stand for environment variables; a flag wins over its variable."""
    for name in names:
        variable, metavar, text = FLAGS[name]
        parser.add_argument(f"--{name}", metavar=metavar, help=f"{text} [{variable}]")


def overridden(args: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with the given flags laid over it."""
    given = {
        variable: value
        for name, (variable, _, _) in FLAGS.items()
        if (value := getattr(args, name.replace("-", "_"), None)) is not None
    }
    return {**environ, **given}


def main(command: str, argv: Sequence[str]) -> int:
    """Run until stopped; 0 after an orderly stop."""
    parser = argparse.ArgumentParser(
        prog=f"diffbox {command}",
        allow_abbrev=False,
        description="Start the queue, the workers and the web page, and keep them running. "
        "Flags win over the environment variables in brackets.",
    )
    add_flags(parser, list(FLAGS))
    environ = overridden(parser.parse_args(argv), Env().copy())
    settings = load_settings(Env(environ))
    log_json_lines()
    asyncio.run(up.run(settings, environ, _say))
    return 0


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError:
        return  # the terminal is gone; the children are not to die for that
