"""Whether the versions of programs fit the package's requirements and the server's versions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from fedmepd.doctor.checks import Check, Topic
from fedmepd.doctor.federation import PROGRAMS, installed_versions

_LOWEST_PYTHON = (3, 11)

_VERSIONS = Topic("versions")
_INSTALL = "pip install -r requirements.txt, in the environment that starts the kit"


def check_versions(server: dict[str, str] | None, python: str) -> Iterator[Check]:
    """Compares the installed versions with the package's requirements and with the server's versions.

    FedMEPD must have the server's version, because messages and states change between versions. FLARE must agree in
    major and minor version, which determine its protocol. Another minor version of PyTorch changes only the last digits
    of results. The patch version and Python do not matter.

    Args:
        server: the server's versions by program, or None if they are not known.
        python: the server's version of Python as the connection revealed it, or empty.
    """
    mine = installed_versions()
    missing = [*_unmet()]
    if sys.version_info < _LOWEST_PYTHON:
        missing.append(f"Python {mine['python']}, expected {'.'.join(map(str, _LOWEST_PYTHON))} or newer")
    if missing:
        yield _VERSIONS.error("packages that are missing or do not fit", ", ".join(missing), _INSTALL)
    else:
        text = ", ".join(f"{name} {mine[name]}" for name in PROGRAMS)
        yield _VERSIONS.ok("installed", text)
    if server is None:
        told = f"; it told only that it runs Python {python}" if python else ""
        advice = "ask its operator for the file of `fedmepd doctor SERVER_KIT --write FILE`, then --against FILE"
        yield _VERSIONS.note("server's versions not known", f"nothing to compare with{told}", advice)
        return
    yield from _compare(mine, server)


def _compare(mine: dict[str, str], server: dict[str, str]) -> Iterator[Check]:
    agreed = True
    for name in PROGRAMS:
        here, there = mine.get(name), server.get(name)
        if here is None or there is None or name == "python" or _same(here, there, whole=name == "fedmepd"):
            continue
        agreed = False
        text = f"{name} {here} here, {there} at the server"
        advice = f"pip install {name}=={there.partition('+')[0]}, or ask the server's operator to change"
        if name == "torch":
            yield _VERSIONS.warning("another version than the server's", text, advice)
        else:
            yield _VERSIONS.error("version that does not fit the server's", text, advice)
    if agreed:
        text = ", ".join(f"{name} {server[name]}" for name in PROGRAMS if name in server)
        yield _VERSIONS.ok("fit the server's", text)


def _same(here: str, there: str, whole: bool) -> bool:
    try:
        return here == there if whole else Version(here).release[:2] == Version(there).release[:2]
    except InvalidVersion:
        return here == there


def _unmet() -> Iterator[str]:
    """Returns requirements that are not met; none if the package was copied and not installed."""
    try:
        wanted = metadata.requires("fedmepd") or []
    except metadata.PackageNotFoundError:
        return
    for line in wanted:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield f"{requirement.name} is not installed"
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield f"{requirement.name} {found}, expected {requirement.specifier}"
