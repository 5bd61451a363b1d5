"""Entries of the results: what their owners are called, and whether they are tested."""

from __future__ import annotations

from typing import Any

_SERVER, _LABEL = "server", "fusion site"


def label(owner: str) -> str:
    """Returns how tables and figures call the owner of an entry.

    Args:
        owner: a site's name; ``server`` for the fusion site, wherever it is.
    """
    return _LABEL if owner == _SERVER else owner


def is_tested(results: dict[str, Any]) -> bool:
    """Whether the run is over and its scores are those of the final test."""
    return results["status"] == "finished"
