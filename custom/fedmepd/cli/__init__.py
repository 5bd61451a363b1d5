"""The command line ``fedmepd``: :mod:`program` puts it together, every other file is a command or what they share."""

from fedmepd.cli.program import build_parser, main

__all__ = ["build_parser", "main"]
