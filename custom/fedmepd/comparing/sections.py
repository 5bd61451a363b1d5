"""What a comparison says, section by section, as cells and sentences; the console, Markdown and HTML show the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fedmepd.comparing.curves import BUDGETS
from fedmepd.comparing.scores import FUSION, MEAN, WORST
from fedmepd.evaluation.entries import label

Row = tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A part of a comparison.

    Args:
        title: its heading.
        header: of the table; empty: there is none.
        rows: cells.
        text_columns: columns at the left that hold text, the others hold numbers.
        notes: sentences under the table.
        wraps: whether cells are sentences, which may take several lines.
    """

    title: str
    header: Row = ()
    rows: Sequence[Row] = ()
    text_columns: int = 1
    notes: Sequence[str] = ()
    wraps: bool = False


def title(comparison: dict[str, Any]) -> str:
    """Returns one line on what is compared."""
    methods, seeds = len(comparison["methods"]), comparison["seeds"]
    listed = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    return f"Comparison of {methods} method{'s' * (methods > 1)}, {listed}"


def sections(comparison: dict[str, Any]) -> list[Section]:
    """Returns all sections; those without content are left out.

    Args:
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.
    """
    made = [
        _in_words(comparison),
        _compared(comparison),
        _needs(comparison),
        _budget(comparison),
        _scores(comparison),
        *_sites(comparison),
        _regions(comparison),
        _differences(comparison),
        _won(comparison),
        _below_local(comparison),
        _ranking(comparison),
        _areas(comparison),
        _chosen(comparison),
    ]
    return [section for section in made if section.rows or section.notes]


def summary(comparison: dict[str, Any], methods: Sequence[str] = ()) -> Section:
    """Returns the shortest table: a column for each method, a row for the sites and one for the fusion site.

    Args:
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.
        methods: to show; none: all.
    """
    scores, against = comparison["scores"], comparison["against"]
    methods = methods or comparison["methods"]
    rows = []
    for column in (MEAN, FUSION):
        found = [scores[name].get(column) for name in methods]
        if None not in found:
            differences = [comparison["differences"].get(name) for name in methods]
            rows.append((label(column), *map(_spread, found)))
            gaps = ["-" if of is None else interval(of["columns"][column], "+.3f") for of in differences]
            rows.append((f"{against} minus this method: 95 % interval", *gaps))
    return Section("Summary", ("mDSC on test cases", *methods), rows)


def _in_words(comparison: dict[str, Any]) -> Section:
    if len(comparison["methods"]) == 1:
        return Section("Nothing to compare", notes=_why_alone(comparison))
    return Section(f"Compared with {comparison['against']}", notes=comparison["sentences"])


def _why_alone(comparison: dict[str, Any]) -> list[str]:
    """Why a method stands by itself: which others lack which seeds, and what would bring them back."""
    seeds, left_out = comparison["seeds"], comparison["left_out"]
    said = [f"{comparison['methods'][0]} is the only method whose runs count"]
    for name, lacking in left_out.items():
        said.append(f"{name} is left out: no finished run with seed {', '.join(map(str, lacking))}")
    # Methods without any finished run never count.
    begun = [set(lacking) for lacking in left_out.values() if len(lacking) < len(seeds)]
    common = [seed for seed in seeds if seed not in set().union(*begun)]
    if begun and common:
        said.append(f"without --complete, the seeds that all methods have are compared: {', '.join(map(str, common))}")
    return said


def _compared(comparison: dict[str, Any]) -> Section:
    rows = []
    for name in comparison["methods"]:
        runs = [run for run in comparison["runs"] if run["method"] == name and run["unused"] is None]
        machines = [
            " ".join(str(part) for part in run["hardware"].values()) if run["hardware"] else None for run in runs
        ]
        rows.append(
            (
                name,
                _distinct(run["version"] for run in runs),
                _distinct(run["precision"] for run in runs),
                _distinct(machines),
                ", ".join(str(run["seed"]) for run in runs),
            )
        )
    notes = [*comparison["design"]["sentences"], *comparison["notes"]]
    return Section("What is compared", ("method", "fedmepd", "precision", "hardware", "seeds"), rows, 5, notes)


def _distinct(values: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(value or "-" for value in values))


# Head, key, how it is printed.
_BUDGET: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("rounds", "rounds", "{:.0f}".format),
    ("site steps", "site_steps", "{:.0f}".format),
    ("fusion steps", "fusion_steps", "{:.0f}".format),
    ("all steps", "steps", "{:.0f}".format),
    ("site passes", "site_passes", "{:.1f}".format),
    ("fusion passes", "fusion_passes", "{:.1f}".format),
    ("MB up", "bytes_up", lambda value: f"{value / 1e6:.1f}"),
    ("MB down", "bytes_down", lambda value: f"{value / 1e6:.1f}"),
    ("seconds", "seconds", "{:.0f}".format),
    ("peak MiB", "peak_mib", "{:.0f}".format),
    ("networks", "networks", "{:.0f}".format),
    ("trials", "trials", "{:.0f}".format),
)


def _budget(comparison: dict[str, Any]) -> Section:
    rows = []
    for name, of_method in comparison["budget"].items():
        numbers = [_or_dash(of_method[key], form) for _, key, form in _BUDGET]
        rows.append((name, *numbers))
    notes = [
        "a whole run, mean over seeds: training steps and passes over the training cases of an average site and of the "
        "fusion site, MB that all sites send and receive, seconds; the largest memory of a process",
        "networks: how many a site keeps; trials: configurations of the method that were tried to find this one, "
        "itself included",
    ]
    return Section("Budget", ("method", *(head for head, _, _ in _BUDGET)), rows, 1, notes)


def _needs(comparison: dict[str, Any]) -> Section:
    columns = [("shared", "what sites share"), ("fusion", "what the fusion site does")]
    if any(of_method["phantoms_only"] for of_method in comparison["budget"].values()):
        columns.append(("phantoms_only", "why it refuses patients' images"))
    rows = [(name, *(of_method[key] or "-" for key, _ in columns)) for name, of_method in comparison["budget"].items()]
    heads = ("method", *(head for _, head in columns))
    return Section("What the methods do", heads, rows, len(heads), wraps=True)


def _scores(comparison: dict[str, Any]) -> Section:
    columns = [MEAN, WORST, *([FUSION] if FUSION in next(iter(comparison["scores"].values())) else [])]
    rows = []
    for name, of_method in comparison["scores"].items():
        cells = [cell for column in columns for cell in (_spread(of_method[column]), interval(of_method[column]))]
        rows.append((name, *cells))
    heads = ("method", *(head for column in columns for head in (label(column), "95 % interval")))
    notes = [
        "mDSC: mean Dice of the regions on test cases; mean ± standard deviation over the seeds",
        "worst site: the lowest mDSC of any site in a run, mean over the seeds; each run can have another worst site",
    ]
    return Section("Scores", heads, rows, 1, notes)


def _sites(comparison: dict[str, Any]) -> list[Section]:
    sites, made = comparison["sites"], []
    for heading, cell in (("mDSC of each site", _spread), ("95 % interval of each site", interval)):
        rows = [(name, *(cell(of_method[site]) for site in sites)) for name, of_method in comparison["scores"].items()]
        made.append(Section(heading, ("method", *sites), rows))
    return made


def _regions(comparison: dict[str, Any]) -> Section:
    rows = []
    for name, parts in comparison["regions_scores"].items():
        for part, regions in parts.items():
            cells = [_or_dash(regions[region]["dice"], "{:.3f}".format) for region in comparison["regions"]]
            cells += [_or_dash(regions[region]["hd95_mm"], "{:.1f}".format) for region in comparison["regions"]]
            cells += [_or_dash(regions[region]["penalised"], "{:.0%}".format) for region in comparison["regions"]]
            rows.append((name, label(part), *cells))
    kinds = ("Dice", "HD95", "penalty")
    heads = ("method", "of", *(f"{kind} {region}" for kind in kinds for region in comparison["regions"]))
    notes = [
        "HD95 in mm, mean over cases; penalty: share of test cases whose region is empty in only one of prediction and "
        "label. HD95 is then the task's fixed distance, which dominates the mean"
    ]
    return Section("Regions", heads, rows, 2, notes)


def _differences(comparison: dict[str, Any]) -> Section:
    rows = []
    for name, found in comparison["differences"].items():
        for column in (MEAN, WORST, FUSION):
            if column in found["columns"]:
                of_column = found["columns"][column]
                tests = [_or_dash(of_column[key], _p) for key in ("p", "p_holm")]
                difference = _or_dash(of_column["mean"], "{:+.3f}".format)
                rows.append((name, label(column), difference, interval(of_column, "+.3f"), *tests))
    notes = [f"mDSC of {comparison['against']} minus that of the other method on the same cases"] if rows else []
    heads = ("method", "of", "difference", "95 % interval", "p", "p after Holm")
    return Section(f"Differences to {comparison['against']}", heads, rows, 2, notes)


def _won(comparison: dict[str, Any]) -> Section:
    rows = [
        (name, *(_sites_cell(found["sites"][key]) for key in ("won", "level", "lost")))
        for name, found in comparison["differences"].items()
        if found["sites"] is not None
    ]
    against = comparison["against"]
    notes = [
        f"won, lost: the site's interval of the difference lies above 0 (in favour of {against}) or below 0; of many "
        "sites and methods some do by chance"
    ]
    heads = ("method", "won", "level", "lost")
    return Section(f"Sites won and lost by {against}", heads, rows, 4, notes if rows else [])


def _below_local(comparison: dict[str, Any]) -> Section:
    below = comparison["below_local"]
    heading = "Sites below local"
    if below is None:
        return Section(heading, notes=["no method is called local: which sites lose by joining is not known"])
    rows = [(name, _sites_cell(found["below"]), _sites_cell(found["shown"])) for name, found in below.items()]
    notes = ["sites whose score is lower than with local, and those of them whose interval of the difference says so"]
    return Section(heading, ("method", "below", "interval below 0"), rows, 3, notes if rows else [])


def _sites_cell(sites: list[str]) -> str:
    return f"{len(sites)} ({', '.join(sites)})" if sites else "0"


def _ranking(comparison: dict[str, Any]) -> Section:
    ranking = comparison["ranking"] or {}
    rows = [
        (name, str(of["place"]), f"{of['first']} to {of['last']}", f"{of['rank']:.2f}")
        for name, of in sorted(ranking.items(), key=lambda item: item[1]["place"])
    ]
    notes = [
        "as in the FeTS challenge: rank in every case, region and metric (Dice, HD95), mean of a site's cases, mean of "
        "the sites; place in 95 % of the bootstrap's draws"
    ]
    return Section("Ranking", ("method", "place", "95 % range", "mean rank"), rows, 1, notes if rows else [])


def _areas(comparison: dict[str, Any]) -> Section:
    curves = {name: of for name, of in comparison["curves"].items() if of is not None}
    rows = [(name, *(_or_dash(of["area"][budget], _spread) for budget in BUDGETS)) for name, of in curves.items()]
    if not rows:
        return Section("Convergence", notes=["no curves: history.json is missing, or does not count steps"])
    budgets = next(iter(curves.values()))["area_up_to"]
    notes = [
        "area under the best validation mDSC so far (mean of the sites), as a mean over the budget that all runs have "
        f"spent: {budgets['steps']:.0f} steps of all participants, {budgets['bytes'] / 1e6:.1f} MB"
    ]
    for budget in BUDGETS:
        reasons = dict.fromkeys(of["no_area"][budget] for of in curves.values())
        for reason in filter(None, reasons):
            names = [name for name, of in curves.items() if of["no_area"][budget] == reason]
            notes.append(f"no score over {budget}: {reason} ({', '.join(names)})")
    return Section("Convergence", ("method", "over steps", "over bytes"), rows, 1, notes)


def _chosen(comparison: dict[str, Any]) -> Section:
    owners = [*comparison["sites"], FUSION]
    rows = [
        (name, seed, *(str(of_seed.get(owner, "-")) for owner in owners))
        for name, of_method in comparison["chosen_rounds"].items()
        for seed, of_seed in of_method.items()
        if of_seed
    ]
    notes = ["the first round with the best validation score; its model is the one that is tested"] if rows else []
    return Section("Chosen round", ("method", "seed", *map(label, owners)), rows, 1, notes)


def interval(of: dict[str, Any], form: str = ".3f") -> str:
    """Returns an interval as it is printed."""
    return "-" if of["low"] is None else f"{of['low']:{form}} to {of['high']:{form}}"


def _spread(of: dict[str, Any]) -> str:
    return f"{of['mean']:.3f}" if of["sd"] is None else f"{of['mean']:.3f} ± {of['sd']:.3f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _or_dash(value: Any, form: Callable[[Any], str]) -> str:
    return "-" if value is None else form(value)
