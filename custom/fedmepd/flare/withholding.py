"""FLARE's policy with which encoders never leave a site: a filter that no job can switch off."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_BEFORE, _AFTER = r"^encoders\.(", r")\."


def policy(modalities: Sequence[str]) -> dict[str, Any]:
    """Returns the content of ``privacy.json`` that keeps these modalities' encoders at the site."""
    scope = {
        "name": "withheld",
        "task_result_filters": [
            {
                "path": "nvflare.app_common.filters.exclude_vars.ExcludeVars",
                "args": {"exclude_vars": f"{_BEFORE}{'|'.join(map(re.escape, modalities))}{_AFTER}"},
            }
        ],
    }
    return {"scopes": [scope], "default_scope": scope["name"]}


def withheld(content: dict[str, Any]) -> tuple[str, ...] | None:
    """Returns the modalities of a policy; None: :func:`policy` has not made it."""
    try:
        pattern = content["scopes"][0]["task_result_filters"][0]["args"]["exclude_vars"]
        modalities = tuple(pattern.removeprefix(_BEFORE).removesuffix(_AFTER).split("|"))
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    return modalities if content == policy(modalities) else None
