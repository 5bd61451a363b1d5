"""Every setting of a job with its bounds, its value in each preset and its description: common ones and a method's own.

>>> [setting.key for setting in own_settings(methods.find("fusion_only"))]
['training.modality_dropout']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fedmepd import methods
from fedmepd.config import Settings
from fedmepd.job_settings import PRESETS, make_settings
from fedmepd.methods.method import Method

_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "multipleOf": "a multiple of",
}
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true, false",
    "string": "text",
    "null": "null",
}


@dataclass(frozen=True)
class Setting:
    """A setting of a job.

    Attributes:
        key: with its section, such as ``network.width``.
        accepts: the values that it may have, in words.
        values: its value in each preset, as text.
        description: what it means.
    """

    key: str
    accepts: str
    values: dict[str, str]
    description: str


def common_settings() -> list[Setting]:
    """Returns the settings that every method has, in the order of :class:`fedmepd.config.Settings`."""
    return _settings(Settings, {name: Settings.model_validate(preset) for name, preset in PRESETS.items()})


def own_settings(method: Method) -> list[Setting]:
    """Returns the settings that a method adds, and the common ones that it changes."""
    presets = {name: make_settings(name, {"method": method.name}) for name in PRESETS}
    common = {setting.key: setting for setting in common_settings()}
    return [
        setting
        for setting in _settings(method.settings, presets)
        if setting.key != "method" and common.get(setting.key) != setting
    ]


def sections() -> dict[str, str]:
    """Returns what the common sections are about, in a few words, by their names."""
    schema = Settings.model_json_schema()
    titles = {
        name: schema["$defs"][field["$ref"].rpartition("/")[2]]["description"].partition(".")[0]
        for name, field in schema["properties"].items()
        if "$ref" in field
    }
    return {name: title[0].lower() + title[1:] for name, title in titles.items()}


def _settings(kind: type[Settings], presets: dict[str, Settings]) -> list[Setting]:
    content = {name: settings.model_dump(mode="json") for name, settings in presets.items()}
    schema = kind.model_json_schema()
    found = []
    for name, field in schema["properties"].items():
        if "$ref" in field:
            below = schema["$defs"][field["$ref"].rpartition("/")[2]]["properties"]
            found += _of_section(below, {preset: values[name] for preset, values in content.items()}, f"{name}.")
        else:
            found += _of_section({name: field}, content, "")
    return found


def _of_section(fields: dict[str, Any], presets: dict[str, dict[str, Any]], prefix: str) -> Iterator[Setting]:
    for name, field in fields.items():
        accepts = ", ".join(f"`{each}`" for each in methods.names()) if prefix + name == "method" else _accepts(field)
        values = {preset: _text(content[name]) for preset, content in presets.items()}
        yield Setting(prefix + name, accepts, values, field["description"])


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str({True: "true", False: "false", None: "null"}[value])
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) or "none"


def _accepts(field: dict[str, Any]) -> str:
    """The values that a field of a JSON Schema may have, in words."""
    if "anyOf" in field:
        return " or ".join(_accepts(each) for each in field["anyOf"])
    if "const" in field:
        value = field["const"]
        return f"`{value}`" if isinstance(value, str) else _text(value)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    limits = [f"{words} {field[keyword]}" for keyword, words in _LIMITS.items() if keyword in field]
    if "pattern" in field:
        limits.append("up to 64 letters, digits, `.`, `_`, `-`")
    return ", ".join([_TYPES[field["type"]], *limits])
