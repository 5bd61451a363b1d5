"""The option ``--set``, which changes any setting of a job."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedmepd.errors import SettingsError


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that :func:`changes` reads."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting, such as training.local_epochs=2; may be given several times; docs/reference.md lists "
        "all settings",
    )


def changes(given: Sequence[str], options: Mapping[str, str]) -> dict[str, Any]:
    """Returns the settings of ``--set``, nested like :class:`fedmepd.config.Settings`, whose bounds are checked there.

    Args:
        given: texts such as ``training.local_epochs=2``. A value is JSON, or else a text.
        options: settings that have an option of their own, with that option.

    Raises:
        SettingsError: a text has no key or no value, names a setting twice, or one that has an option of its own.

    >>> changes(["training.local_epochs=2", "training.precision=float32"], {})
    {'training': {'local_epochs': 2, 'precision': 'float32'}}
    """
    nested: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise SettingsError(f"--set {text}: expected KEY=VALUE, such as training.local_epochs=2")
        if key.strip() in options:
            raise SettingsError(f"--set {text}: say {options[key.strip()]}")
        section = nested
        for part in path[:-1]:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise SettingsError(f"--set {text}: {part} is given twice")
        if path[-1] in section:
            raise SettingsError(f"--set {text}: {key} is given twice")
        section[path[-1]] = _value(value.strip())
    return nested


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
