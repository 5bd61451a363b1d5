"""The results of a run as a table, for the console and in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedmepd.config import cohort_name
from fedmepd.evaluation import lesion_table
from fedmepd.evaluation.entries import is_tested, label
from fedmepd.tasks.find import task_of
from fedmepd.text_table import counted, markdown_text, table

if TYPE_CHECKING:
    from fedmepd.tasks.task import Task

# The first columns.
SITE, MODALITIES, CASES = range(3)
TEXT_COLUMNS = 3
# How the heads of other columns begin, and what the mean of the regions is called.
DICE, MDSC = "Dice", "mDSC"


def header(results: dict[str, Any]) -> tuple[str, ...]:
    """Returns the heads of the columns of :func:`rows`."""
    regions = task_of(results["settings"]).regions
    return (
        "site",
        "modalities",
        "cases",
        *(f"{DICE} {region}" for region in regions),
        MDSC,
        *(f"HD95 {region}" for region in regions),
        "personal",
    )


def console_table(results: dict[str, Any]) -> str:
    """Returns the results as an aligned plain-text table with notes under it."""
    body = _ruled(table(header(results), rows(results), left=range(TEXT_COLUMNS)))
    if lesion_table.has_lesions(results):
        body += [
            "",
            lesion_table.TITLE,
            "",
            *_ruled(table(lesion_table.header(results), lesion_table.rows(results), left=range(1))),
        ]
    return "\n".join([title(results), "", *body, "", *notes(results)]) + "\n"


def _ruled(lines: list[str]) -> list[str]:
    rule = "-" * max(map(len, lines))
    # The mean and the fusion site stand apart from the sites.
    return [lines[0], rule, *lines[1:-2], rule, *lines[-2:]]


def markdown_table(results: dict[str, Any]) -> str:
    """Returns the results as a Markdown page."""
    lines = _markdown(header(results), rows(results), TEXT_COLUMNS)
    if lesion_table.has_lesions(results):
        lines += [
            "",
            f"{lesion_table.TITLE}:",
            "",
            *_markdown(lesion_table.header(results), lesion_table.rows(results), 1),
        ]
    below = [f"- {markdown_text(note)}" for note in notes(results)]
    return "\n".join([f"# {markdown_text(title(results))}", "", *lines, "", *below]) + "\n"


def _markdown(heads: tuple[str, ...], of: list[tuple[str, ...]], text_columns: int) -> list[str]:
    rule = ["---"] * text_columns + ["---:"] * (len(heads) - text_columns)
    return [f"| {' | '.join(map(markdown_text, row))} |" for row in (heads, rule, *of)]


def status_in_words(results: dict[str, Any]) -> str:
    """Returns whether a run is finished; a file cannot tell whether one that is not still goes on or was stopped."""
    return "finished" if is_tested(results) else "not finished"


def title(results: dict[str, Any]) -> str:
    """Returns one line on the run: method, name, round, seed, seconds, status."""
    name = f" {results['run_name']}" if results["run_name"] else ""
    return (
        f"{results['method']}{name}: round {results['round']} of {results['rounds']}, seed {results['seed']}, "
        f"{results['seconds']:.0f} s, {status_in_words(results)}"
    )


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Returns the cells under :func:`header`: a row for each site, the sites' mean, the fusion site."""
    scores = "test" if is_tested(results) else "validation"
    regions = tuple(task_of(results["settings"]).regions)
    cells = [_row(regions, entry["name"], entry, entry[scores]) for entry in results["sites"]]
    mean = results["mean"]
    means = mean if is_tested(results) else mean["validation"]
    cells.append(_row(regions, "mean of the sites", {"personal_share": mean["personal_share"]}, means))
    cells.append(_row(regions, label(results["server"]["name"]), results["server"], results["server"][scores]))
    return cells


def _row(regions: tuple[str, ...], name: str, entry: dict[str, Any], scores: dict[str, Any] | None) -> tuple[str, ...]:
    scores = scores or {}
    dice, distances = scores.get("dice") or {}, scores.get("hd95_mm") or {}
    cases = entry.get("cases", {})
    return (
        name,
        " ".join(entry.get("modalities", ())),
        "/".join(str(number) for number in cases.values()),
        *(_number(dice.get(region), ".3f") for region in regions),
        _number(scores.get("mdsc"), ".3f"),
        *(_number(distances.get(region), ".1f") for region in regions),
        _number(entry["personal_share"], ".0%"),
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def notes(results: dict[str, Any]) -> list[str]:
    """Returns notes that are needed to read the table, one sentence each."""
    said = [
        "cases: for training/validation/test; Dice: 1 is best; mDSC: mean Dice of the regions; HD95: distance in mm, 0 "
        "is best; personal: share of the decoder's filters that a site keeps for itself",
        *_note_on_regions(task_of(results["settings"])),
    ]
    entries = [*results["sites"], results["server"]]
    if results.get("source") == "phantom":
        cohort = cohort_name(results["settings"]["data"]["phantom"])
        said.append(f"the cases are phantoms (cohort {cohort}): nothing here is about patients")
    if is_tested(results):
        said += _notes_on_empty(entries, task_of(results["settings"]).empty_distance_mm)
        untested = [
            label(entry["name"]) + (f" ({entry['untested']})" if entry["untested"] else "")
            for entry in entries
            if entry["test"] is None
        ]
        if untested:
            said.append(f"not tested, and not in the mean: {', '.join(untested)}")
        said += _notes_on_labels(entries, tuple(task_of(results["settings"]).regions))
        said += [lesion_table.note(results)] if lesion_table.has_lesions(results) else []
    else:
        said.append(f"the run is not finished: these are scores on the validation cases, {_validated(entries)}")
    if is_tested(results) and results["round"] < results["rounds"]:
        said.append(
            f"the training ended after round {results['round']} of {results['rounds']}: too few sites had anything "
            "left of their privacy budgets"
        )
    # Results of an older version do not say.
    said += _notes_on_rounds(results["sites"], results.get("left_out", []))
    if results["server"]["rounds_missed"]:
        said.append(f"without fusion training: {_rounds_and_reasons(results['server']['rounds_missed'])}")
    said += _notes_on_privacy(entries)
    said += [note for site in results["sites"] for note in _notes_on_limits(site)]
    if results["timing"]["mean_round"]:
        said.append(_note_on_time(results["timing"]))
    return said


def _notes_on_labels(entries: list[dict[str, Any]], regions: tuple[str, ...]) -> list[str]:
    lines = []
    for entry in entries:
        untold = [region for region in regions if entry["test"] and region not in entry["test"]["dice"]]
        if untold:
            name = label(entry["name"])
            lines.append(
                f"{name}: its labels do not tell {', '.join(untold)}, or fewer of its cases than its min_count have it "
                "in label or segmentation; it is not in those means"
            )
    return lines


def _notes_on_privacy(entries: list[dict[str, Any]]) -> list[str]:
    # Results of an older version have none.
    spent = [({"ended": None} | entry, entry["privacy"]) for entry in entries if entry.get("privacy")]
    return [
        f"{label(entry['name'])}: differential privacy for each training patient, epsilon {of['epsilon']:.3g} of "
        f"{of['budget']:g} at delta {of['delta']:g}"
        + (f"; from round {entry['ended']} on it trained no further, since its budget was spent" * bool(entry["ended"]))
        for entry, of in spent
    ]


def _notes_on_rounds(sites: list[dict[str, Any]], left_out: list[dict[str, str]]) -> list[str]:
    partly = [site for site in sites if site["rounds_missed"] or site["joined"] > 1]
    if not partly and not left_out:
        return ["every site took part in every round"]
    notes = [f"{site['name']}: took no part ({site['reason']})" for site in left_out]
    notes += map(_note_on_rounds, partly)
    return [*notes, *(["the other sites took part in every round"] if partly != sites else [])]


def _note_on_rounds(site: dict[str, Any]) -> str:
    joined = f"joined in round {site['joined']}; " if site["joined"] > 1 else ""
    without = _rounds_and_reasons(site["rounds_missed"], "without round")
    return f"{site['name']}: {joined}took part in round {ranges(site['rounds_taken'])}" + (without and f"; {without}")


def _rounds_and_reasons(missed: list[dict[str, Any]], word: str = "round") -> str:
    reasons: dict[str, list[int]] = {}
    for entry in missed:
        reasons.setdefault(entry["reason"], []).append(entry["round"])
    return "; ".join(f"{word} {ranges(rounds)} ({reason})" for reason, rounds in reasons.items())


def _notes_on_limits(site: dict[str, Any]) -> list[str]:
    # Runs of version 0.2 do not say of filters.
    alone = [limited for limited in site["limited"] if limited.get("filters")]
    whole = [limited for limited in site["limited"] if limited not in alone]
    notes = []
    if whole:
        largest = max(limited["times_median"] for limited in whole)
        scaled = f"update scaled down in round {ranges([limited['round'] for limited in whole])}"
        notes.append(f"{site['name']}: {scaled}: up to {largest:g} times the median site's size")
    if alone:
        most = max(limited["filters"] for limited in alone)
        scaled = f"single filters scaled down in round {ranges([limited['round'] for limited in alone])}"
        notes.append(f"{site['name']}: {scaled}: up to {most} of its update")
    return notes


def ranges(rounds: list[int]) -> str:
    """Returns 1, 2, 3, 5 as 1-3, 5."""
    parts: list[list[int]] = []
    for number in sorted(rounds):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts) or "none"


def _note_on_time(timing: dict[str, Any]) -> str:
    mean, overhead = timing["mean_round"], timing["overhead"]["share_of_training"]
    phases = ", ".join(f"{phase.replace('_', ' ')} {seconds:.1f}" for phase, seconds in mean.items())
    share = "" if overhead is None else f"; all but training and evaluation: {overhead:.0%} of the training"
    ends = f"start-up {timing['seconds']['start_up']:.1f}, final test {timing['seconds']['testing']:.1f}"
    return f"seconds of an average round: {sum(mean.values()):.1f} ({phases}){share}; {ends}"


def _validated(entries: list[dict[str, Any]]) -> str:
    rounds = {entry["validation"]["round"] for entry in entries if entry["validation"]}
    if not rounds:
        return "of which none are there yet"
    first, last = min(rounds), max(rounds)
    return f"of round {last}" if first == last else f"of rounds {first} to {last}"


def _note_on_regions(task: Task) -> list[str]:
    titles = [f"{region}: {task.region_titles[region]}" for region in task.regions if region in task.region_titles]
    return ["; ".join(titles)] if titles else []


def _notes_on_empty(entries: list[dict[str, Any]], empty_mm: float) -> list[str]:
    """What the scores of regions mean that a case does not have, or that were not found in it."""
    penalty = f"Dice 0, HD95 {empty_mm:g} mm"
    neither = "Dice 1, HD95 0 mm"
    kinds = {
        "label": f"the label has no {{region}}, but the model found some: {penalty}",
        "prediction": f"the label has {{region}}, but the model found none: {penalty}",
        "both": f"neither label nor segmentation has {{region}}: {neither}",
        # A site that reports no scores of cases says only how many there are.
        None: f"label or segmentation has no {{region}}: {neither} if both have none, else {penalty}",
    }
    tested = sum(entry["cases"]["test"] for entry in entries if entry["test"])
    counts: dict[tuple[str, str | None], dict[str, int]] = {}
    for entry in entries:
        for region, number in (entry["test"] or {"empty": {}})["empty"].items():
            told = [case["empty"].get(region) for case in entry.get("test_cases") or ()]
            for kind in kinds:
                count = number if kind is None and not told else told.count(kind) if kind else 0
                if count:
                    counts.setdefault((region, kind), {})[label(entry["name"])] = count
    lines = []
    for (region, kind), owners in counts.items():
        number = sum(owners.values())
        where = ", ".join(f"{owner} {count}" for owner, count in owners.items())
        lines.append(f"in {number} of {counted(tested, 'test case')} {kinds[kind].format(region=region)} ({where})")
    if not lines and any(entry["test"] for entry in entries):
        return ["every region is in every test case, and was found there"]
    return lines
