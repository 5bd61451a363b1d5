"""Whether the versions of programs fit the package's requirements and the server's versions."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from fedmepd.doctor.checks import Check, Topic
from fedmepd.doctor.federation import PROGRAMS, installed_versions

_LOWEST_PYTHON = (3, 11)

_VERSIONS = Topic("versions")
_INSTALL = "pip install -r requirements.txt, in the environment that starts the kit"


@dataclass(frozen=True)
class Installed:
    """What a Python environment holds.

    Args:
        versions: by program, of those of :data:`fedmepd.doctor.federation.PROGRAMS` that are installed.
        unmet: a text for each of the package's requirements that is not met.
    """

    versions: dict[str, str]
    unmet: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Installed:
        """Returns what this process runs in."""
        return cls(installed_versions(), (*unmet_requirements(_requirements()), *_too_old(sys.version_info)))


def check_versions(mine: Installed, server: dict[str, str] | None, python: str) -> Iterator[Check]:
    """Compares the installed versions with the package's requirements and with the server's versions.

    FedMEPD must have the server's version, because messages and states change between versions. FLARE must agree in
    major and minor version, which determine its protocol. Another minor version of PyTorch changes only the last digits
    of results. The patch version and Python do not matter.

    Args:
        mine: what is installed here.
        server: the server's versions by program, or None if they are not known.
        python: the server's version of Python as the connection revealed it, or empty.
    """
    if mine.unmet:
        yield _VERSIONS.error("packages that are missing or do not fit", ", ".join(mine.unmet), _INSTALL)
    else:
        text = ", ".join(f"{name} {mine.versions[name]}" for name in PROGRAMS)
        yield _VERSIONS.ok("installed", text)
    if server is None:
        told = f"; it told only that it runs Python {python}" if python else ""
        advice = "ask its operator for the file of `fedmepd doctor SERVER_KIT --write FILE`, then --against FILE"
        yield _VERSIONS.note("server's versions not known", f"nothing to compare with{told}", advice)
        return
    yield from _compare(mine.versions, server)


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


def _requirements() -> list[str]:
    """The package's requirements; none if it was copied and not installed."""
    try:
        return metadata.requires("fedmepd") or []
    except metadata.PackageNotFoundError:
        return []


def _too_old(python: Sequence[int | str]) -> Iterator[str]:
    if tuple(python[:2]) < _LOWEST_PYTHON:
        yield f"Python {_dotted(python[:3])}, expected {_dotted(_LOWEST_PYTHON)} or newer"


def _dotted(version: Iterable[int | str]) -> str:
    return ".".join(map(str, version))


def unmet_requirements(wanted: Iterable[str]) -> Iterator[str]:
    """Yields a text for each requirement that this environment does not meet.

    Args:
        wanted: requirements as a package states them, such as ``numpy>=1.26``; those of an extra do not count.
    """
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
