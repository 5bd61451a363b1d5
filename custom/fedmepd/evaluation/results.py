"""The results of a run: one dictionary with stable keys, written as results.json and results.md; history.json: curves.

Scores and shares are fractions (0 to 1), distances millimetres. Nothing in it names a case or a path.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from shlex import quote
from statistics import fmean
from typing import Any, Literal

from fedmepd import __version__
from fedmepd.closest import like_path
from fedmepd.config import Settings
from fedmepd.environment import versions
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation.metrics import VERSION as EVALUATION
from fedmepd.evaluation.result_files import require_results
from fedmepd.evaluation.runs_below import files_below
from fedmepd.storage import read_foreign_json, write_json, write_text
from fedmepd.tasks.rules import LESION_COUNTS
from fedmepd.text_table import natural_order

FILE_NAME = "results.json"
HISTORY = "history.json"

# Where a run's results lie below a folder that a user may name.
_PLACES = (
    FILE_NAME,
    f"results/{FILE_NAME}",  # a job's run folder on the server
    f"workspace/results/{FILE_NAME}",  # a downloaded job
    f"*/workspace/results/{FILE_NAME}",  # the folder of downloaded jobs
    f"server/simulate_job/results/{FILE_NAME}",  # a simulator workspace
    f"*/server/simulate_job/results/{FILE_NAME}",  # the workspace of job.py, one folder per job
    f"*/results/{FILE_NAME}",  # the server's folder in production, one folder per job
    f"*/*/results/{FILE_NAME}",  # a project's folder with the server and its sites (POC: prod_00)
    f"*/prod_*/*/*/results/{FILE_NAME}",  # a POC workspace
)
# Runs further below that a message names.
_MOST_SHOWN = 10
# Of the difference between a mean and that of the values which it is said to be of.
ROUNDING = 1e-6
# What a record of an older version may lack.
_LATER = ("test_cases", "test_fingerprint", "privacy", "ended")
_RECORDED = ("test", "untested", "validation", "joined", "rounds_taken", "rounds_missed", "limited")


def site_entry(
    name: str,
    modalities: Sequence[str],
    cases: dict[str, int],
    record: dict[str, Any],
    *,
    personal_share: float | None = None,
    work: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns what the results hold about one site, or about the fusion site.

    Args:
        name: the site's name; ``server`` for the fusion site.
        modalities: the modalities it has.
        cases: number of cases for ``train``, ``validation`` and ``test``.
        record: what happened to it, see :class:`fedmepd.federation.records.Records`: ``joined``, ``rounds_taken``,
            ``rounds_missed``, ``limited``, the latest ``validation``, ``test`` (what
            :func:`fedmepd.evaluation.metrics.summarise` returned; None until then, or without such cases) and
            ``untested``.
        personal_share: share of the decoder's filters that are personal; None where the method has none.
        work: what the run has cost it, see :meth:`fedmepd.federation.records.Records.work`.
    """
    return {
        "name": name,
        "modalities": list(modalities),
        "cases": {part: cases[part] for part in ("train", "validation", "test")},
        "personal_share": personal_share,
        **{key: record[key] for key in _RECORDED},
        **{key: record.get(key) for key in _LATER},
        "work": work,
    }


def build(
    settings: Settings,
    *,
    status: Literal["running", "finished"],
    round: int,
    seconds: float,
    timing: dict[str, Any],
    server: dict[str, Any],
    sites: Iterable[dict[str, Any]],
    filters: dict[str, int] | None = None,
    cross_site: dict[str, Any] | None = None,
    left_out: Mapping[str, str] | None = None,
    fusion_bytes: tuple[int, int] = (0, 0),
    machine: dict[str, Any] | None = None,
    precision: str = "",
    source: Literal["phantom", "folder"] | None = None,
) -> dict[str, Any]:
    """Returns the results of a run.

    Args:
        settings: the job's settings.
        status: ``finished`` once everything is tested.
        round: the last finished round.
        seconds: wall-clock time spent so far.
        timing: where it went: what :meth:`fedmepd.federation.timing.Timing.summary` returned.
        server: the fusion site's :func:`site_entry`.
        sites: those of the sites, in any order.
        filters: number of filters of each of the decoder's convolutions, where filters may become personal.
        cross_site: what :meth:`fedmepd.federation.cross_site.CrossSiteTest.result` returned; None where the job did not
            ask for it.
        left_out: why sites took no part at all, by name.
        fusion_bytes: of tensors from and to the fusion site, where it is not in the server's process.
        machine: of the server, see :func:`fedmepd.environment.hardware`.
        precision: of the training's convolutions at the server.
        source: whether the cases are phantoms or come from data folders; None where that is not known.
    """
    sites = sorted(sites, key=lambda entry: natural_order(entry["name"]))
    return {
        "method": settings.method,
        "run_name": settings.run_name,
        "seed": settings.seed,
        "trials": settings.trials,
        "rounds": settings.rounds,
        "round": round,
        "status": status,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        "timing": timing,
        "mean": {
            **_mean([site["test"] for site in sites], ("dice", "hd95_mm", "nsd")),
            "lesions": _lesions([site["test"] for site in sites if site["test"] is not None]),
            "validation": _mean([site["validation"] for site in sites], ("dice",)),
            "personal_share": _mean_of(sites, lambda site: site["personal_share"]),
        },
        "server": server,
        "fusion": {"site": settings.fusion.site, "bytes_up": fusion_bytes[0], "bytes_down": fusion_bytes[1]},
        "sites": sites,
        "left_out": [{"name": name, "reason": reason} for name, reason in sorted((left_out or {}).items())],
        "filters": filters or {},
        "cross_site": cross_site,
        "settings": settings.model_dump(mode="json"),
        "hardware": machine,
        "precision": precision,
        "source": source,
        "evaluation": EVALUATION,
        "version": __version__,
        "versions": versions(),
    }


def write(folder: Path, results: dict[str, Any], histories: dict[str, Any]) -> None:
    """Writes results.json, results.md and history.json into ``folder``, each atomically.

    Args:
        folder: to write to.
        results: what :func:`build` returned.
        histories: curves of the fusion site (``server``) and of every site, see
            :class:`fedmepd.federation.records.Records`.

    Raises:
        FedMEPDError: the disk is full or the folder cannot be written; existing files are unchanged.
    """
    from fedmepd.evaluation.tables import markdown_table

    # No line breaks, because the curves of a thousand rounds of eight sites are long.
    write_text(Path(folder) / HISTORY, json.dumps(histories, allow_nan=False) + "\n")
    write_json(Path(folder) / FILE_NAME, results)
    write_text(Path(folder) / "results.md", markdown_table(results))


def find(workspace: Path) -> Path:
    """Finds a run's results.json below a simulator workspace, a downloaded job or a run folder; the newest of several.

    Raises:
        FedMEPDError: there is none; the message names runs further below, or says what is expected.
    """
    return find_all(workspace)[0]


def find_all(workspace: Path, *, also: Sequence[str] = ()) -> list[Path]:
    """Finds the results.json of every run below a folder, the newest first; see :func:`find`.

    Args:
        workspace: the folder, or a results.json.
        also: names of other files about runs, of which the message tells too if there is no results.json.
    """
    workspace = Path(workspace)
    if not workspace.exists():
        raise FedMEPDError(
            f"{workspace} does not exist: expected the workspace or run folder of a job{like_path(workspace)}"
        )
    if workspace.is_file():
        return [workspace]
    found = [path for place in _PLACES for path in workspace.glob(place) if path.is_file()]
    # A run once, and by its own name, also where a link leads to it.
    found.sort(key=lambda path: not _is_behind_link(path, workspace))
    found = list({path.resolve(): path for path in found}.values())
    if not found:
        raise FedMEPDError(f"no run in {workspace}{_what_to_name(workspace, (FILE_NAME, *also))}")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _what_to_name(folder: Path, names: Sequence[str]) -> str:
    """The end of a sentence about a folder that is none of a run: runs further below, or what is expected."""
    files = [file for name in names for file in islice(files_below(folder, name), _MOST_SHOWN + 1)]
    if not files:
        return (
            ": expected a run folder, a workspace of the simulator or of POC, a downloaded job, or a folder of jobs at "
            "a server. A run's first results are written when its round 0 is over"
        )
    runs = list(dict.fromkeys(str(run_folder(file)) for file in files))
    more = " and more" if len(runs) > _MOST_SHOWN else ""
    several = sum(file.name == FILE_NAME for file in files) > 1
    compared = f"; `fedmepd compare show {quote(str(folder))}` compares all of them" if several else ""
    return f", but below it: {', '.join(runs[:_MOST_SHOWN])}{more}. Name one of them{compared}"


def _is_behind_link(path: Path, workspace: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents[: len(path.relative_to(workspace).parents) - 1])


def run_folder(path: Path) -> Path:
    """Returns the folder that a user knows a run by, from that of its results.json."""
    folder = Path(path).parent
    for name in ("results", "simulate_job", "server", "workspace"):
        if folder.name == name:
            folder = folder.parent
    return folder


def read(path: Path) -> dict[str, Any]:
    """Reads a results.json.

    Raises:
        FedMEPDError: it cannot be read, or something else is in it.
    """
    results = read_foreign_json(path, f"a {FILE_NAME} of fedmepd")
    require_results(results, path, FILE_NAME)
    return results


def _mean(summaries: Sequence[dict | None], by_region: Sequence[str]) -> dict[str, Any]:
    """Averages what several sites' summaries have; None where none has it."""
    present = [summary for summary in summaries if summary is not None]
    mean: dict[str, Any] = {"mdsc": _mean_of(present, lambda summary: summary["mdsc"])}
    for key in by_region:
        # A site whose labels do not tell a region has no share in its mean.
        regions = _by_region([summary.get(key) or {} for summary in present])
        mean[key] = {region: fmean(values) for region, values in regions.items()} or None
    if any(len(summary["dice"]) < len(mean["dice"]) for summary in present):
        # A site that tells the easy regions alone must not raise it.
        mean["mdsc"] = fmean(mean["dice"].values())
    return mean


def _lesions(summaries: Sequence[dict]) -> dict[str, dict[str, float | int]] | None:
    """By region, the means over sites of the scores lesion by lesion, and how many lesions there are in all."""
    of_regions = _by_region([summary.get("lesions") or {} for summary in summaries])
    return {
        region: {key: fmean(of[key] for of in sites) for key in ("dice", "hd95_mm")}
        | {count: sum(of[count] for of in sites) for count in LESION_COUNTS}
        for region, sites in of_regions.items()
    } or None


def _by_region(summaries: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """What each of several sites has of a region, by region in the order in which they are first met."""
    regions = dict.fromkeys(region for summary in summaries for region in summary)
    return {region: [summary[region] for summary in summaries if region in summary] for region in regions}


def _mean_of(items: Iterable[Any], value: Callable[[Any], float | None]) -> float | None:
    values = [value(item) for item in items]
    values = [number for number in values if number is not None]
    return fmean(values) if values else None
