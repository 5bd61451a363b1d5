"""A run's settings on its page: first those that differ from the preset, all others folded away."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fedmepd.config import flattened
from fedmepd.errors import SettingsError
from fedmepd.job_settings import PRESETS, make_settings
from fedmepd.reporting import html
from fedmepd.text_table import counted


def section(run: dict[str, Any]) -> list[str]:
    """Returns the end of a page: version, seed and settings of a run.

    Args:
        run: results of a run, or what a site keeps of it.
    """
    versions = "".join(f", {name} {version}" for name, version in run.get("versions", {}).items())
    return [
        "<h2>Settings</h2>",
        *_settings(flattened(run["settings"])),
        f"<p>seed {run['seed']}; fedmepd {escape(run['version'] + versions)}</p>",
        "<p>For research. Not a medical device.</p>",
    ]


def _settings(settings: dict[str, Any]) -> list[str]:
    nearest = nearest_preset(settings)
    rows = [(key, _shown(value)) for key, value in settings.items()]
    every = html.table(("setting", "value"), rows, 2, kind="settings")
    folded = f"<details><summary>All {counted(len(settings), 'setting')}</summary>{every}</details>"
    if nearest is None:
        return [folded]
    name, values = nearest
    changed = [(key, value, _shown(values.get(key))) for key, value in rows if settings[key] != values.get(key)]
    if not changed:
        return [f"<p>All settings are those of the preset {name}.</p>", folded]
    others = f"<p>All other settings are those of the preset {name}.</p>"
    return [html.table(("setting", "value", f"preset {name}"), changed, 3, kind="settings"), others, folded]


def nearest_preset(settings: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Returns the preset that the settings differ least from, and its values; None for a method of another version.

    A job says only its settings, not what preset they began with.

    Args:
        settings: by full name.
    """
    found = {}
    for name in PRESETS:
        try:
            made = make_settings(name, {"method": settings.get("method")})
        except SettingsError:
            return None
        found[name] = flattened(made.model_dump(mode="json"))
    return min(found.items(), key=lambda item: sum(value != item[1].get(key) for key, value in settings.items()))


def _shown(value: Any) -> str:
    return value or "(none)" if isinstance(value, str) else json.dumps(value)
