"""The reference of all commands and settings, written from the code.

Run ``python -m fedmepd.cli.reference docs/reference.md`` in the root of the repository, where ``job.py`` is.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel

from fedmepd import methods
from fedmepd.cli.json_output import OUTPUTS, keys
from fedmepd.cli.program import build_parser
from fedmepd.cli.settings_list import Setting, common_settings, own_settings, sections
from fedmepd.cli.terminal import REFUSED
from fedmepd.errors import FedMEPDError
from fedmepd.job_settings import PRESETS
from fedmepd.site_settings import FILE_NAME, VARIABLES, SiteSettings
from fedmepd.storage import write_text

RENEW = "python -m fedmepd.cli.reference docs/reference.md"

_ABOUT_COMMANDS = """\
`--help` after any command prints the same. `fedmepd --version` prints the version. Unless a command says otherwise,
the exit status is 0 when it is done, 2 after an error that you can correct (one line describes it), and 130 when it was
interrupted or terminated.
"""

_ABOUT_JSON = """\
These commands print one JSON document with `--json` and nothing else on standard output (`fedmepd watch` prints one on
each line); progress and warnings go to standard error. Exit status and errors are the same as without it. Scripts can
rely on the keys below: a later version may add keys, and keeps these. Fractions are 0 to 1, distances mm, volumes ml,
times seconds; null stands for what is not known or not defined. `[]` is a list, `NAME` any name.
"""

_ABOUT_JOBS = """\
A job names a preset and the settings that differ from it, in `app/config/config_fed_server.json`:

    "path": "fedmepd.flare.controller.FedMEPDController",
    "args": {"preset": "paper", "settings": {"rounds": 300, "network": {"width": 8}, "run_name": "trial-1"}}

`FedMEPDRecipe(preset=..., settings=...)` and the options of `job.py` do the same. The server sends the settings to
every site. A job with an unknown key or a value out of bounds is refused before it starts, and the message names the
key. [method.md](method.md) explains what the settings do.
"""

_ABOUT_METHODS = """\
A job's `method` decides which of these settings it has, besides the settings above. A setting of another method is
refused. `fedmepd methods NAME` prints the same.
"""

_ABOUT_MACHINES = f"""\
Each server and site has its own, in `local/{FILE_NAME}` of its FLARE kit or in environment variables, which override
the file. No job can change them. Only `cross_site` leaves the machine, and the name of a limit that a job goes beyond.
`fedmepd data init --kit` writes `data` into the file. Relative paths in the file are relative to its folder. In the
simulator, where nothing leaves the machine, `min_count` is 1 and there are no limits unless you set them. A variable
that starts with `FEDMEPD_` and is not in this table is refused.
"""


def reference(root: Path) -> str:
    """Returns the page in Markdown.

    The layout is made here and not by argparse, because its ``--help`` looks different in every version of Python and
    on every width of terminal.

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
        "- [JSON output](#json-output)",
        "- [Settings of a job](#settings-of-a-job)",
        "- [Settings of a method](#settings-of-a-method)",
        "- [Settings of a machine](#settings-of-a-machine)",
        "",
        "## Commands",
        "",
        _ABOUT_COMMANDS,
    ]
    for name, parser in commands.items():
        lines += _command(name, parser)
    return "\n".join([*lines, *_json_output(), *_job_settings(), *_machine_settings()]) + "\n"


def _anchor(name: str) -> str:
    return name.replace(".", "").replace(" ", "-")


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yields the commands below a parser by their full names."""
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
    """Returns the help of one command in the list."""
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


def _json_output() -> list[str]:
    lines = ["## JSON output", "", _ABOUT_JSON]
    for command, model in OUTPUTS.items():
        rows = [f"| `{key}` | {_cell(meaning)} |" for key, meaning in keys(model)]
        lines += [f"### `{command} --json`", "", "| key | |", "|---|---|", *rows, ""]
    return lines


def _job_settings() -> list[str]:
    lines = ["## Settings of a job", "", _ABOUT_JOBS]
    common = common_settings()
    lines += _settings_table("### The whole job", [each for each in common if "." not in each.key])
    for section, title in sections().items():
        rows = [each for each in common if each.key.startswith(f"{section}.")]
        lines += _settings_table(f"### `{section}`: {title}", rows)
    lines += ["## Settings of a method", "", _ABOUT_METHODS]
    for name in methods.names():
        method = methods.find(name)
        title = f"### `{name}`: {method.title} ({method.paper})"
        own = own_settings(method)
        lines += _settings_table(title, own) if own else [title, "", "No settings of its own.", ""]
    return lines


def _settings_table(title: str, settings: Sequence[Setting]) -> list[str]:
    lines = [title, "", f"| key | value | {' | '.join(PRESETS)} | |", f"|---|---|{'---|' * len(PRESETS)}---|"]
    for setting in settings:
        cells = (setting.accepts, *setting.values.values(), setting.description)
        lines.append(f"| `{setting.key}` | {' | '.join(map(_cell, cells))} |")
    return [*lines, ""]


def _machine_settings() -> list[str]:
    lines = [
        "## Settings of a machine",
        "",
        _ABOUT_MACHINES,
        "| key | environment variable | default | |",
        "|---|---|---|---|",
    ]
    sections: dict[str, type[BaseModel]] = {}
    for key, field in SiteSettings.model_fields.items():
        if isinstance(field.default, BaseModel):
            sections[key] = type(field.default)
            lines.append(f"| `{key}` | | below | {_cell(field.description)} |")
            continue
        default = "none" if field.default is None else f"`{field.default}`"
        lines.append(f"| `{key}` | `{VARIABLES[key]}` | {default} | {_cell(field.description)} |")
    for key, section in sections.items():
        lines += ["", f"### `{key}`", "", _cell(section.__doc__.partition("\n")[0]), ""]
        lines += ["| key | default | |", "|---|---|---|"]
        for name, field in section.model_fields.items():
            lines.append(f"| `{name}` | {_default(field.default)} | {_cell(field.description)} |")
    return lines


def _default(value: bool | float | str | None) -> str:
    if value is None or isinstance(value, str):
        return str(value or "none").lower()
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


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
