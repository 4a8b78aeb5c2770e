"""The gallery: finished outputs."""

from __future__ import annotations

from controlplane.components import Gallery


def gallery_page() -> None:
    """Draw the gallery."""
    Gallery()
