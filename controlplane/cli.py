"""The `diffbox` command. Each subcommand is a module that is imported only when it is called.

diffbox up | ui | worker | generate | jobs | doctor
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from core.errors import DiffboxError

EXIT_FAILED: Final = 1
EXIT_REJECTED: Final = 2
"""The user's input was refused; argparse uses the same code."""
EXIT_INTERRUPTED: Final = 130
_REJECTIONS: Final = frozenset({"invalid_params", "input_rejected", "unknown_workflow"})

# name -> (module with main(argv) -> exit code, what it does)
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("controlplane.cli_up", "start everything on this computer: queue, workers, web page"),
    "ui": ("controlplane.cli_processes", "start the web page and API alone"),
    "worker": ("controlplane.cli_processes", "start one worker, which runs jobs"),
    "generate": ("controlplane.cli_generate", "make a video or picture from the command line"),
    "jobs": ("controlplane.cli_jobs", "list, show, cancel or watch jobs of a running diffbox"),
    "doctor": ("controlplane.cli_doctor", "look at this computer and say what is missing"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 failed, 2 refused, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    chosen = _parser().parse_args(args[:1]).command
    try:
        run = import_module(COMMANDS[chosen][0]).main
        code: int = run(chosen, args[1:])
    except DiffboxError as error:
        return report(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has enough, as in `diffbox jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except ModuleNotFoundError as error:
        print(f"error: {error}. Install it with: pip install 'diffbox[ui]'", file=sys.stderr)
        return EXIT_FAILED
    return code


def report(error: DiffboxError) -> int:
    """Say what is wrong, one line a problem, and give the exit code for it."""
    for problem in error.problems:
        flag = problem.field.replace("_", "-")
        where = "" if not flag or f"--{flag}" in problem.message else f" (--{flag})"
        print(f"error: {problem.message}{where}", file=sys.stderr)
    if not error.problems:
        print(f"error: {error.message}", file=sys.stderr)
    return exit_code(error.code)


def exit_code(code: str) -> int:
    """The exit code for an error's `code`."""
    return EXIT_REJECTED if code in _REJECTIONS else EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="diffbox",
        description="AI video and image generation on your own or rented GPUs.",
        epilog="\n".join(["commands:", *lines, "", "diffbox COMMAND --help says more."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"diffbox {_version()}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    return parser


def _version() -> str:
    try:
        return version("diffbox")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
