"""What routes and pages are given: the parts of the running control plane, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.backends.base import Backend
from controlplane.config import Settings
from controlplane.jobs import Jobs
from controlplane.uploads import Uploads


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The parts that live as long as the process; made once, by main."""

    settings: Settings
    jobs: Jobs
    uploads: Uploads
    backend: Backend
