"""predict, evaluate, data, report and export need nothing that only Linux has, as far as Linux can show it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.every_command import COMMANDS, material

PACKAGE = Path(__file__).parents[1] / "custom" / "fedmepd"

# Of Unix alone. What starts FLARE's processes, or many runs, uses them.
MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog")
FUNCTIONS = ("fork", "forkpty", "killpg", "setsid", "getuid", "geteuid", "chown", "mkfifo", "statvfs", "uname", "wait")
UNIX = ("flare", "doctor", "experiments")

# Takes them away from this package, and /proc from everybody, then runs what the arguments say.
PRELUDE = f"""
import builtins, os, runpy, sys
unwanted, taken = {MODULES!r}, {FUNCTIONS!r}
plain = builtins.__import__
def importing(name, globals=None, *more, **named):
    if name in unwanted and (globals or {{}}).get("__name__", "").startswith("fedmepd"):
        raise ImportError(f"no module named {{name}} on this system")
    return plain(name, globals, *more, **named)
builtins.__import__ = importing
def opening(event, arguments):
    if event == "open" and str(arguments[0]).startswith("/proc"):
        raise FileNotFoundError(2, "no such file", arguments[0])
import torch, monai, nibabel, scipy.ndimage, matplotlib.figure, psutil
for name in taken:
    if name != "getuid":
        delattr(os, name)
del os.O_DIRECTORY
sys.addaudithook(opening)
runpy.run_module("tests.cli.every_command", run_name="__main__")
"""


def uses(tree: ast.AST) -> Iterator[str]:
    """The modules and functions of Unix that a file uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield node.module
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            yield from (name for name in FUNCTIONS if name == node.attr)


def test_only_what_starts_processes_uses_what_is_of_unix() -> None:
    found = {
        str(file.relative_to(PACKAGE)): names
        for file in sorted(PACKAGE.rglob("*.py"))
        if (names := list(uses(ast.parse(file.read_text(encoding="utf-8")))))
    }
    elsewhere = {file: names for file, names in found.items() if file.split("/")[0] not in UNIX}
    # Asked for only where it exists.
    assert elsewhere == {"surroundings.py": ["getuid"]}
    assert found.keys() - elsewhere.keys(), "this test looks for nothing"


@pytest.mark.slow
def test_the_commands_without_them(tmp_path: Path) -> None:
    material(tmp_path / "m")
    topics = ("predict", "evaluate", "data", "report", "results", "checkpoint")
    commands = [name for name in COMMANDS if name.split()[0] in topics]
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE, str(tmp_path / "m"), str(tmp_path / "w"), *commands],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parents[1],
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["command"] for report in reports] == commands, done.stderr
    for report in reports:
        assert not report["raised"] and report["status"] == COMMANDS[report["command"]][1], report
