"""What came out of a run, in one sentence, three numbers and a line of facts: the head of its page."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fedmepd import methods
from fedmepd.config import cohort_name
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation.entries import is_tested, label
from fedmepd.text_table import counted

PHANTOMS = "The cases are PHANTOMS, which this software makes itself: the scores say nothing about patients."
# The second decimal changes from one seed to the next already.
_SCORE = ".2f"


def sentence(results: dict[str, Any]) -> str:
    """Returns the method, on what cases, and the scores of the sites and of the fusion site."""
    title = _method(results["method"]) + (f" {results['run_name']}" if results["run_name"] else "")
    sites, fusion = _mean(results)["mdsc"], _scores(results, results["server"])
    found = [
        f"{score:{_SCORE}} {where}"
        for score, where in ((sites, "at the sites"), (fusion and fusion["mdsc"], "at the fusion site"))
        if score is not None
    ]
    kind = "mean Dice" if is_tested(results) else f"round {results['round']} of {results['rounds']}, validation Dice"
    return f"{title}{_source(results)}: " + (f"{kind} {', '.join(found)}" if found else "no scores yet")


def numbers(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the sites' mean, the worst site and the fusion site: what it is, its mDSC, and more about it."""
    scored = [(scores["mdsc"], entry) for entry in results["sites"] if (scores := _scores(results, entry))]
    found = []
    if scored:
        worst, site = min(scored, key=lambda pair: pair[0])
        among = f"{len(scored)} of " if len(scored) < len(results["sites"]) else ""
        mean = _mean(results)["mdsc"]
        found.append(("mean of the sites", f"{mean:{_SCORE}}", f"{among}{counted(len(results['sites']), 'site')}"))
        found.append(("worst site", f"{worst:{_SCORE}}", f"{site['name']}: {' '.join(site['modalities'])}"))
    fusion = _scores(results, results["server"])
    if fusion:
        place = results.get("fusion", {}).get("site") or "the server"
        modalities = " ".join(results["server"]["modalities"])
        found.append((label(results["server"]["name"]), f"{fusion['mdsc']:{_SCORE}}", f"at {place}: {modalities}"))
    return found


def facts(results: dict[str, Any]) -> str:
    """Returns when the run was, how long, and on how many cases."""
    sites, fusion = results["sites"], results["server"]["cases"]
    of_sites = {part: sum(site["cases"][part] for site in sites) for part in fusion}
    when = results.get("date")
    return "; ".join(
        [
            *([datetime.fromisoformat(when).strftime("%Y-%m-%d %H:%M UTC")] if when else []),
            f"round {results['round']} of {results['rounds']}, {_duration(results['seconds'])}",
            f"one run, seed {results['seed']}",
            f"cases for training/validation/test: {_cases(of_sites)} at {counted(len(sites), 'site')}, "
            f"{_cases(fusion)} at the fusion site",
        ]
    )


def sentence_of_site(run: dict[str, Any]) -> str:
    """Returns the site, the method and the site's own score.

    Args:
        run: what the site keeps of it, see :mod:`fedmepd.evaluation.site_results`.
    """
    validations = run["history"]["validation"]
    if run["test"]:
        score = f"mean Dice {run['test']['mdsc']:{_SCORE}} on its test cases"
    elif validations:
        score = f"validation Dice {validations[-1]['mdsc']:{_SCORE}}"
    else:
        score = "no scores yet"
    named = f" {run['run_name']}" if run["run_name"] else ""
    return f"{run['name']}: {_method(run['method'])}{named}, {score}"


def facts_of_site(run: dict[str, Any]) -> str:
    """Returns the site's modalities, how far the run is, and on how many cases."""
    return (
        f"{' '.join(run['modalities'])}; round {run['round']} of {run['rounds']}, {run['status']}; one run, "
        f"seed {run['seed']}; cases for training/validation/test: {_cases(run['cases'])}"
    )


def _cases(counts: dict[str, int]) -> str:
    return "/".join(str(counts[part]) for part in ("train", "validation", "test"))


def _source(results: dict[str, Any]) -> str:
    if results.get("source") == "phantom":
        return f" on phantoms (cohort {cohort_name(results['settings']['data']['phantom'])})"
    return " on cases of data folders" if results.get("source") == "folder" else ""


def _method(name: str) -> str:
    try:
        return methods.find(name).title
    except FedMEPDError:
        # A method of another version.
        return name


def _mean(results: dict[str, Any]) -> dict[str, Any]:
    return results["mean"] if is_tested(results) else results["mean"]["validation"]


def _scores(results: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any] | None:
    return entry["test" if is_tested(results) else "validation"]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
