"""The parser of our command lines: it proposes what was meant by a command, option or value that it does not know."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from shlex import join
from typing import Any

from fedmepd.closest import closest, did_you_mean, question


class Parser(argparse.ArgumentParser):
    """As argparse's; the parsers of its commands are of this class too."""

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parses, and refuses what it does not know.

        argparse leaves that to the parser of the whole program, whose usage has none of a command's options.
        """
        options = [option for action in self._actions for option in action.option_strings if len(option) > 2]
        if self._subparsers is None:
            # Before argparse says that the option which was misspelt is required.
            self._refuse(
                [word for word in _options_in(args) if not any(one.startswith(word) for one in options)], options
            )
        found, unknown = super().parse_known_args(args, namespace)
        self._refuse(unknown, options)
        return found, unknown

    def _refuse(self, unknown: Sequence[str], options: Sequence[str]) -> None:
        if unknown:
            meant = [did_you_mean(word.partition("=")[0], options) for word in unknown if word.startswith("-")]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{next(filter(None, meant), '')}")

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        try:
            return super()._get_value(action, text)
        except argparse.ArgumentError as error:
            raise argparse.ArgumentError(action, error.message + _by_spaces(text, action)) from error

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            raise argparse.ArgumentError(action, error.message + _meant(str(value), action)) from error


def _by_spaces(text: str, action: argparse.Action) -> str:
    """The end of a sentence about several values in one word; empty where that is not what is wrong."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if action.nargs != "+" or len(words) < 2:
        return ""
    return f"; separate them by spaces: {join([*action.option_strings[:1], *words])}"


def _options_in(args: Sequence[str] | None) -> Iterator[str]:
    for word in sys.argv[1:] if args is None else args:
        if word == "--":
            return
        if word.startswith("--"):
            yield word.partition("=")[0]


def _meant(word: str, action: argparse.Action) -> str:
    known = did_you_mean(word, map(str, action.choices))
    if not isinstance(action, argparse._SubParsersAction):
        return _by_spaces(word, action) or known
    # Somebody may have called a topic's command without the topic: ``check`` is ``data check``.
    below = {f"{topic} {name}": name for topic, name in _commands_below(action)}
    exactly = [command for command, name in below.items() if name == word]
    alike = [command for name in closest(word, below.values()) for command in below if below[command] == name]
    return question(exactly) or known or question(alike)


def _commands_below(action: argparse._SubParsersAction) -> Iterator[tuple[str, str]]:
    for topic, parser in action.choices.items():
        for one in parser._actions:
            if isinstance(one, argparse._SubParsersAction):
                yield from ((topic, name) for name in one.choices)
