"""The reference of all commands and settings, written from the code.

Run ``python -m fedmepd.cli.reference docs/reference.md`` in the root of the repository, where ``job.py`` is.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedmepd.cli.program import build_parser
from fedmepd.cli.terminal import REFUSED
from fedmepd.config import PRESETS, Settings
from fedmepd.errors import FedMEPDError
from fedmepd.site_settings import FILE_NAME, VARIABLES, SiteSettings
from fedmepd.storage import write_text

RENEW = "python -m fedmepd.cli.reference docs/reference.md"

_ABOUT_COMMANDS = """\
`--help` after any of them says the same, `fedmepd --version` the version. Exit status, where nothing else is said: 0
done, 2 something that the user can put right, with one line that says what, 130 interrupted.
"""

_ABOUT_JOBS = """\
A job names a preset and what it changes in it, in `app/config/config_fed_server.json`:

    "path": "fedmepd.flare.controller.FedMEPDController",
    "args": {"preset": "paper", "settings": {"rounds": 300, "network": {"width": 8}, "run_name": "trial-1"}}

`FedMEPDRecipe(preset=..., settings=...)` and the options of `job.py` do the same. The server sends the settings to
every site. An unknown key or a value out of bounds ends the job before it starts, with a line that names it.
[method.md](method.md) says what they mean for the method.
"""

_ABOUT_MACHINES = f"""\
Each server and site decides them for itself, in `local/{FILE_NAME}` of its FLARE kit or by environment variables, which
win. No job can change them, and none but `cross_site` leaves the machine. `fedmepd data init --kit` writes the file's
`data`. Relative paths in the file start at its folder.
"""


def reference(root: Path) -> str:
    """Returns the page in Markdown.

    What a parser and the settings say of themselves is laid out here, not by argparse, whose ``--help`` looks otherwise
    in every version of Python and on every width of terminal.

    Args:
        root: of the repository.

    Raises:
        FedMEPDError: there is no ``job.py``.
    """
    script = root / "job.py"
    if not script.is_file():
        raise FedMEPDError(f"{script} does not exist: expected the root of the repository")
    commands = dict(_commands(build_parser()))
    commands["python job.py"] = runpy.run_path(str(script))["build_parser"]()
    lines = [
        "# Reference: commands and settings",
        "",
        f"Written from the code by `{RENEW}`; a test compares the two.",
        "",
        "- [Commands](#commands)",
        *(f"  - [`{name}`](#{_anchor(name)})" for name in commands),
        "- [Settings of a job](#settings-of-a-job)",
        "- [Settings of a machine](#settings-of-a-machine)",
        "",
        "## Commands",
        "",
        _ABOUT_COMMANDS,
    ]
    for name, parser in commands.items():
        lines += _command(name, parser)
    return "\n".join([*lines, *_job_settings(), *_machine_settings()]) + "\n"


def _anchor(name: str) -> str:
    return name.replace(".", "").replace(" ", "-")


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands below a parser that do something, by their full name."""
    topics = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not topics:
        yield parser.prog, parser
    for topic in topics:
        for below in topic.choices.values():
            yield from _commands(below)


def _command(name: str, parser: argparse.ArgumentParser) -> list[str]:
    arguments = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    lines = [f"### `{name}`", "", f"    {name} {_usage(parser, arguments)}".rstrip(), ""]
    said = [text for text in (parser.description or _help_of(name), parser.epilog) if text]
    lines += [" ".join(_sentence(text) for text in said), ""]
    if arguments:
        lines += ["| | |", "|---|---|"]
        lines += [f"| `{_cell(_spelling(action))}` | {_cell(_meaning(parser, action))} |" for action in arguments]
        lines.append("")
    return lines


def _help_of(name: str) -> str:
    """What the list of commands says of one."""
    parser = build_parser()
    text = ""
    for word in name.split()[1:]:
        [topic] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        text = next(choice.help for choice in topic._choices_actions if choice.dest == word)
        parser = topic.choices[word]
    return text


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


def _usage(parser: argparse.ArgumentParser, arguments: Sequence[argparse.Action]) -> str:
    groups = [group._group_actions for group in parser._mutually_exclusive_groups if group.required]
    alternatives = [action for group in groups for action in group]
    positional = [_spelling(action) for action in arguments if not action.option_strings]
    required = [
        _spelling(action)
        for action in arguments
        if action.option_strings and action.required and action not in alternatives
    ]
    required += [f"({' | '.join(_spelling(action) for action in group)})" for group in groups]
    optional = any(action.option_strings and not action.required and action not in alternatives for action in arguments)
    return " ".join([*positional, *required, *(["[options]"] if optional else [])])


def _spelling(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings)
    if action.nargs == 0:
        return name
    if action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    else:
        value = action.metavar or action.dest.upper()
    if action.nargs == "?":
        value = f"[{value}]"
    elif action.nargs == "+":
        value = f"{value} ..."
    return f"{name} {value}" if name else value


def _meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    others = [
        other.option_strings[0]
        for group in parser._mutually_exclusive_groups
        if action in group._group_actions
        for other in group._group_actions
        if other is not action
    ]
    return f"{text}; not together with {', '.join(others)}" if others else text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _job_settings() -> list[str]:
    lines = ["## Settings of a job", "", _ABOUT_JOBS]
    schema = Settings.model_json_schema()
    presets = {name: Settings.make(name).model_dump(mode="json") for name in PRESETS}
    top = {key: value for key, value in schema["properties"].items() if "$ref" not in value}
    lines += _settings_table("The whole job", top, presets, "")
    for section, value in schema["properties"].items():
        if "$ref" in value:
            of_section = schema["$defs"][value["$ref"].rpartition("/")[2]]
            values = {name: content[section] for name, content in presets.items()}
            title = of_section["description"].partition(".")[0]
            lines += _settings_table(
                f"`{section}`: {title[0].lower()}{title[1:]}", of_section["properties"], values, f"{section}."
            )
    return lines


def _settings_table(title: str, fields: dict[str, Any], presets: dict[str, dict[str, Any]], prefix: str) -> list[str]:
    lines = [f"### {title}", "", f"| key | value | {' | '.join(presets)} | |", f"|---|---|{'---|' * len(presets)}---|"]
    for key, field in fields.items():
        values = " | ".join(_value(content[key]) for content in presets.values())
        lines.append(f"| `{prefix}{key}` | {_cell(_kind(field))} | {values} | {_cell(field['description'])} |")
    return [*lines, ""]


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str({True: "true", False: "false", None: "null"}[value])
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) or "none"


def _kind(field: dict[str, Any]) -> str:
    """What a value may be, from JSON Schema."""
    if "anyOf" in field:
        return " or ".join(_kind(each) for each in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = {
        "integer": "whole number",
        "number": "number",
        "boolean": "true, false",
        "string": "text",
        "null": "null",
    }[field["type"]]
    limits = []
    for keyword, words in {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
        "multipleOf": "a multiple of",
    }.items():
        if keyword in field:
            limits.append(f"{words} {field[keyword]}")
    if "pattern" in field:
        limits.append("up to 64 letters, digits, `.`, `_`, `-`")
    return ", ".join([kind, *limits])


def _machine_settings() -> list[str]:
    lines = [
        "## Settings of a machine",
        "",
        _ABOUT_MACHINES,
        "| key | environment variable | default | |",
        "|---|---|---|---|",
    ]
    for key, field in SiteSettings.model_fields.items():
        default = "none" if field.default is None else f"`{field.default}`"
        lines.append(f"| `{key}` | `{VARIABLES[key]}` | {default} | {_cell(field.description)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page."""
    parser = argparse.ArgumentParser(
        prog="python -m fedmepd.cli.reference", description=__doc__.partition(":")[0] + "."
    )
    parser.add_argument("out", type=Path, help="the page to write")
    out = parser.parse_args(arguments).out
    try:
        write_text(out, reference(Path.cwd()))
    except FedMEPDError as error:
        print(f"fedmepd.cli.reference: {error}", file=sys.stderr)
        return REFUSED
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
