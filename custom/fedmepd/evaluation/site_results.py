"""What a site keeps about its own part of a run: ``site.json`` beside its models. It never leaves the site by itself.

Scores are fractions (0 to 1), distances millimetres. Nothing in it names a case or a path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedmepd import __version__
from fedmepd.config import Settings
from fedmepd.environment import versions
from fedmepd.evaluation.result_files import SiteResults, require
from fedmepd.storage import read_foreign_json

FILE_NAME = "site.json"

# Where it lies below a folder that a user may name.
_PLACES = (
    FILE_NAME,
    f"fedmepd/{FILE_NAME}",  # a job's run folder at the site
    f"simulate_job/fedmepd/{FILE_NAME}",  # the site's folder in a simulator workspace
    f"*/fedmepd/{FILE_NAME}",  # the site's kit, one folder per job
    f"*/{FILE_NAME}",  # a named run
    f"fedmepd_runs/*/*/{FILE_NAME}",  # the site's kit, named runs
)


def build(
    name: str,
    settings: Settings,
    modalities: tuple[str, ...],
    cases: dict[str, int],
    filters: dict[str, int],
) -> dict[str, Any]:
    """Returns what a site knows before its first round.

    Args:
        name: the site's.
        settings: the job's.
        modalities: those that the site has.
        cases: numbers of ``train``, ``validation`` and ``test`` cases.
        filters: number of filters of each of the decoder's convolutions, where filters may become personal.
    """
    return {
        "name": name,
        "modalities": list(modalities),
        "cases": cases,
        "method": settings.method,
        "run_name": settings.run_name,
        "seed": settings.seed,
        "rounds": settings.rounds,
        "round": 0,
        "status": "running",
        "test": None,
        "selected_round": None,
        "examples": {},
        "filters": filters,
        "history": {"validation": [], "rounds": [], "personal": {}},
        "settings": settings.model_dump(mode="json"),
        "version": __version__,
        "versions": versions(),
    }


def find(folder: Path) -> Path | None:
    """Finds a site's file below its run folder, model folder or kit; the newest of several, or None."""
    return next(iter(find_all(folder)), None)


def find_all(folder: Path) -> list[Path]:
    """Finds a site's file of every run below a folder, the newest first; see :func:`find`."""
    if folder.is_file():
        return [folder] if folder.name == FILE_NAME else []
    found = {path.resolve(): path for place in _PLACES for path in folder.glob(place) if path.is_file()}
    return sorted(found.values(), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def read(path: Path) -> dict[str, Any]:
    """Reads a site's file.

    Raises:
        FedMEPDError: it cannot be read, or something else is in it.
    """
    content = read_foreign_json(path, f"a {FILE_NAME} of fedmepd")
    require(SiteResults, content, path, FILE_NAME)
    return content
