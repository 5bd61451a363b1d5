"""Makes the settings of a job from a preset, a method's own settings, and the values that the job overrides.

>>> from fedmepd.job_settings import make_settings
>>> make_settings("phantom", {"method": "fedavg", "rounds": 3}).rounds
3
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from fedmepd import methods
from fedmepd.closest import one_of
from fedmepd.config import Settings, merge
from fedmepd.errors import SettingsError, explain, fields_at

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # The paper's method, scaled to the phantom cohort and to a few dozen rounds.
    "phantom": {
        "rounds": 20,
        "network": {"width": 8},
        "aggregation": {"min_sites": 1, "round_timeout": 900, "straggler_wait": 300},
        "training": {
            "crop": 32,
            "batch": 2,
            "learning_rate": 4e-3,
            "weight_decay": 0.0,
            "threads": 1,
            # Two samples a batch, each on a thread of its own; the sites wait meanwhile.
            "fusion_threads": 2,
        },
        "augmentation": {"tumour_share": 0.7, "rotation_degrees": 0, "intensity": 0},
        "evaluation": {"window": 48, "every": 5},
        "data": {"phantom": True, "train": 0.5, "validation": 0.125},
    },
}


def make_settings(preset: str = "paper", overrides: dict[str, Any] | None = None) -> Settings:
    """Returns the settings of a preset, with changes.

    Args:
        preset: one of :data:`PRESETS`.
        overrides: changes, nested like the settings themselves. The key ``method`` decides which settings exist.

    Raises:
        SettingsError: a key is unknown or a value is out of bounds; the message names the key.
    """
    if preset not in PRESETS:
        raise SettingsError(f"unknown preset {preset!r}: {one_of(preset, PRESETS)}")
    if overrides is not None and not isinstance(overrides, dict):
        raise SettingsError(f"settings: expected an object of keys and values, got {type(overrides).__name__}")
    overrides = overrides or {}
    method = methods.find(overrides.get("method", Settings.model_fields["method"].default))
    base = merge(PRESETS[preset], method.settings.presets.get(preset, {}))
    try:
        settings = method.settings.model_validate(merge(base, overrides))
    except ValidationError as error:
        raise SettingsError(explain(error, "settings", method.settings, _of_other_method(method.name))) from error
    if settings.aggregation.robust() and not method.averages:
        raise SettingsError(
            f"settings: aggregation.trim and aggregation.direction are for methods that average updates, and "
            f"{method.name} does not: leave them out"
        )
    if settings.privacy.epsilon and not method.private:
        raise SettingsError(
            "settings: privacy.epsilon: the method cannot be trained with differential privacy: choose one of "
            f"{', '.join(methods.private_names())}, or leave privacy out"
        )
    return settings


def _of_other_method(method: str) -> Callable[[tuple[str | int, ...]], str]:
    """Returns a function that says, of an unknown key, which other methods have it as a setting."""

    def owners(location: tuple[str | int, ...]) -> str:
        others = [name for name in methods.names() if location[-1] in fields_at(methods.find(name).settings, location)]
        if not others:
            return ""
        return f"is a setting of {', '.join(others)}, and this job's method is {method}: leave it out"

    return owners


def of_this_version(kept: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a run, with the default of each that the version that began it did not have."""
    try:
        return make_settings("paper", kept).model_dump(mode="json")
    except SettingsError:
        return kept
