"""`diffbox doctor`: what is here, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from controlplane import cli
from controlplane.config import load_settings
from controlplane.doctor import Finding, findings
from core.config import Env
from core.errors import ConfigError


def main(command: str, argv: Sequence[str]) -> int:
    """Print all findings; 1 when something must be mended."""
    parser = argparse.ArgumentParser(
        prog=f"diffbox {command}",
        allow_abbrev=False,
        description="Look at this computer: packages, GPU, memory, folders, weights, programs, "
        "ports, queue and password.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--hash",
        action="store_true",
        help="also read all weights whole and keep their sha256, which then stands in outputs",
    )
    args = parser.parse_args(argv)
    env = Env()
    found = []
    try:
        for finding in findings(load_settings(env), env.copy(), hashed=args.hash):
            found.append(finding)
            if not args.json:
                print(as_text(finding), flush=True)
    except ConfigError as error:
        found.append(Finding(level="fail", topic="settings", text=error.message))
        if not args.json:
            print(as_text(found[-1]))
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    failed = sum(finding.level == "fail" for finding in found)
    if failed and not args.json:
        print(f"{failed} of {len(found)} must be mended", file=sys.stderr)
    return cli.EXIT_FAILED if failed else 0


def as_text(finding: Finding) -> str:
    """`warn  gpu: none found …` with the advice on a line of its own."""
    text = f"{finding.level:<4}  {finding.topic}: {finding.text}"
    return f"{text}\n      → {finding.advice}" if finding.advice else text
