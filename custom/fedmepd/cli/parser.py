"""The parser of our command lines: it proposes what was meant by a command, option or value that it does not know."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fedmepd.closest import did_you_mean, question


class Parser(argparse.ArgumentParser):
    """As argparse's; the parsers of its commands are of this class too."""

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parses, and refuses what it does not know.

        argparse leaves that to the parser of the whole program, whose usage has none of a command's options.
        """
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings if len(option) > 2]
            meant = [did_you_mean(word.partition("=")[0], options) for word in unknown if word.startswith("-")]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{next(filter(None, meant), '')}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            meant = did_you_mean(str(value), map(str, action.choices))
            if isinstance(action, argparse._SubParsersAction):
                meant = question(_commands_named(str(value), action)) or meant
            raise argparse.ArgumentError(action, error.message + meant) from error


def _commands_named(word: str, commands: argparse._SubParsersAction) -> list[str]:
    """Returns the commands of a topic that somebody has called without it: ``check`` is ``data check``."""
    found = []
    for name, parser in commands.choices.items():
        for below in parser._actions:
            if isinstance(below, argparse._SubParsersAction) and word in below.choices:
                found.append(f"{name} {word}")
    return found
