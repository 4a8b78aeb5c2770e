"""The page of one job, and the list of all."""

from __future__ import annotations

from typing import Any

from controlplane import forms
from controlplane.components import JobPage, JobsTable
from core.workflows import workflows


def job_page(job_id: str) -> None:
    """Draw the page of one job."""
    JobPage(job_id, titles=_titles())


def jobs_page() -> None:
    """Draw the list of all jobs."""
    JobsTable()


def _titles() -> dict[str, Any]:
    return {
        workflow.id: {
            field.name: {
                "title": field.title,
                "unit": field.unit,
                "widget": field.widget,
                "labels": {choice.value: choice.label for choice in field.choices},
            }
            for field in forms.form_of(workflow, ready=()).fields
        }
        for workflow in workflows()
    }
