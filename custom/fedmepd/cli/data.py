"""The commands ``fedmepd data ...``."""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from shlex import join, quote
from statistics import median
from typing import TYPE_CHECKING, Any

from fedmepd.cli.tasks import add_task_option, chosen_task, convention_of, conventions_help
from fedmepd.cli.terminal import FAULTY, elsewhere_with, progress_bar
from fedmepd.closest import like_path
from fedmepd.errors import LOG_SAYS_MORE, DataError, FedMEPDError, SettingsError
from fedmepd.text_table import counted

if TYPE_CHECKING:
    from fedmepd.data.file_kinds import Pattern
    from fedmepd.data.findings import Finding
    from fedmepd.data.inspection import Inspection
    from fedmepd.data.layouts import Dataset
    from fedmepd.data.source import Source
    from fedmepd.tasks.task import Task

_SHARES = {"train": 0.6, "validation": 0.1}

# In a table, of what nothing has been decided about.
_OPEN = "-"


def add_data_commands(data: argparse._SubParsersAction) -> None:
    """Adds them to the parser of ``fedmepd data``."""
    phantom = data.add_parser("phantom", help="write a phantom cohort as NIfTI, one sub-folder per site")
    phantom.add_argument("folder", type=Path, help="folder for the sites; existing phantoms are kept")
    phantom.add_argument("--seed", type=int, default=0, help="seed of the cohort; default: 0")
    phantom.add_argument(
        "--cohort",
        choices=["mild", "hospitals"],
        default="mild",
        help="mild: sites that are much alike; hospitals: sites that differ as hospitals do; default: mild",
    )
    phantom.set_defaults(run=_make_phantoms)

    check = data.add_parser(
        "check",
        help="list what a folder contains and what is wrong with it",
        description="Lists what a folder of cases, a list, or a federation's folder of sites contains and what "
        "is wrong with it, errors and warnings first. Exit status: 0 no errors, 1 errors in the data, 2 it "
        "cannot be read.",
    )
    check.add_argument("folder", type=Path, help="folder of cases or of sites, or a list (.csv, .json)")
    names = check.add_mutually_exclusive_group()
    names.add_argument("--details", action="store_true", help="name all cases and files, also those of notes")
    names.add_argument("--anonymous", action="store_true", help="name no case, file, folder: for output that you send")
    check.add_argument("--json", action="store_true", help="print what was found as JSON")
    check.add_argument(
        "--one-site",
        action="store_true",
        help="the folder is one hospital's: folders in it are patients or examinations, and no sites",
    )
    _add_reading(check)
    check.set_defaults(run=_check)

    init = data.add_parser(
        "init",
        help="make a hospital's folder the data set of its site",
        description="Checks a folder of cases, assigns patients to training, validation and test, and writes a "
        "manifest with a checksum of every file. Run it again when there are new cases, labels or modalities: known "
        "patients keep their part.",
    )
    init.add_argument("folder", type=Path, help="folder of cases, or a list (.csv, .json)")
    init.add_argument("--out", type=Path, help="folder for the data set; default: the manifest goes into FOLDER")
    init.add_argument("--kit", type=Path, help="a FLARE kit that shall use the data set (local/fedmepd.json)")
    init.add_argument(
        "--fusion",
        metavar="WHICH",
        help="patients whose cases are for fusion training and not the site's own: all (of those with all modalities), "
        "a share of them such as 0.5, or a text file with one patient per line; default: as before",
    )
    _add_making(init)
    init.set_defaults(run=_init)

    split = data.add_parser(
        "split",
        help="make the sites of a federation from one data set",
        description="Distributes the labelled cases of a data set, by patient, to the fusion site and the sites, and "
        "splits the cases of each site into training, validation and test.",
    )
    split.add_argument("folder", type=Path, help="folder of cases, or a list (.csv, .json)")
    split.add_argument("out", type=Path, help="folder for the sites; repeating the same split changes nothing")
    how = split.add_mutually_exclusive_group(required=True)
    how.add_argument("--protocol", choices=("brats2018", "brats2020"), help="the paper's eight sites and fusion site")
    how.add_argument("--split-dir", type=Path, help="folder of published lists: server.csv, c1.csv to c8.csv")
    how.add_argument("--sites", type=Path, help="YAML file with the sites of any other federation")
    how.add_argument(
        "--partition", type=Path, help="CSV file of FeTS, such as partitioning_1.csv, with Partition_ID and Subject_ID"
    )
    _add_making(split)
    split.set_defaults(run=_split)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    add_task_option(parser)
    parser.add_argument(
        "--labels",
        metavar="VALUES",
        help=f"meaning of the label values: {conventions_help()}; default: that of the layout",
    )
    parser.add_argument(
        "--pattern",
        action="append",
        default=[],
        metavar="KIND=PATTERN",
        help="which files of a case are a modality or the label, such as 'label=*_MASK.nii.gz'; may be given several "
        "times; default: by the words of their names, or as before",
    )
    parser.add_argument("--follow-links", action="store_true", help="read links that lead out of a case's folder")


def _add_making(parser: argparse.ArgumentParser) -> None:
    _add_reading(parser)
    parser.add_argument(
        "--skip-faulty", action="store_true", help="leave out cases with errors instead of refusing the folder"
    )
    parser.add_argument("--copy", action="store_true", help="copy files instead of linking to them")
    parser.add_argument(
        "--train", type=float, default=_SHARES["train"], help="share of patients to train on; default: 0.6"
    )
    parser.add_argument(
        "--validation",
        type=float,
        help="share of patients to validate on; default: 0.1; the rest is for testing",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random assignment of patients; default: 0")


def _make_phantoms(options: argparse.Namespace) -> None:
    from fedmepd.data.phantom import phantom_sites
    from fedmepd.data.phantom_cohorts import COHORTS, ensure_site

    for site, modalities in phantom_sites().items():
        folder = ensure_site(options.folder, site, options.seed, COHORTS[options.cohort])
        print(f"{folder}  {' '.join(modalities)}", flush=True)


def _check(options: argparse.Namespace) -> int:
    try:
        return _check_folder(options)
    except FedMEPDError as error:
        if options.anonymous:
            raise type(error)(
                error.public.replace(LOG_SAYS_MORE, "without --anonymous the message says more")
            ) from None
        raise
    except OSError as error:
        if options.anonymous:
            said = f"a file or folder cannot be used ({error.strerror}): without --anonymous the message names it"
            raise DataError(said) from None
        raise


def _check_folder(options: argparse.Namespace) -> int:
    from fedmepd.data.findings import ERROR, WARNING, advice_for_a_run
    from fedmepd.data.folder_reading import data_sets, require_one_reading
    from fedmepd.data.layouts import find_dataset
    from fedmepd.data.source import no_case
    from fedmepd.data.summary import describe_data

    task = chosen_task(options, [options.labels])
    # An unknown name is told before anything is looked at.
    _labels(options)
    sites, beside = data_sets(
        task,
        options.folder,
        lambda what: _say(options, f"found {what}\n"),
        follow_links=options.follow_links,
        one_site=options.one_site,
    )
    if sites:
        _require_no_reading(sites, options)
        return _check_sites(sites, beside, options)
    dataset = find_dataset(
        task,
        options.folder,
        follow_links=options.follow_links,
        patterns=_patterns(options),
        manifest=not options.pattern,
    )
    if not options.one_site:
        require_one_reading(task, dataset)
    if not dataset.cases and not any(found.severity == ERROR for found in dataset.findings):
        raise no_case(task, options.folder, dataset.findings)
    inspection = _inspect(dataset, options)
    if options.json:
        return _print_json(task, {None: dataset}, inspection.findings, [], options)
    _print_findings(inspection.findings, options, (ERROR, WARNING))
    print("\n".join(["", *describe_data(dataset, inspection)]))
    # What its manifest notes needs no option.
    said = [] if dataset.parts is not None else _reading(options)
    return _conclude(inspection.findings, options, len(inspection.cases), advice_for_a_run(said))


def _reading(options: argparse.Namespace) -> list[str]:
    """The options that say how the folder is read, as words of a command."""
    labels = [] if options.labels is None else ["--labels", options.labels]
    patterns = [word for pattern in options.pattern for word in ("--pattern", pattern)]
    return [*labels, *patterns, *(["--follow-links"] if options.follow_links else [])]


def _require_no_reading(sites: dict[str, Dataset], options: argparse.Namespace) -> None:
    """Refuses options that hold for one data set: no run of these sites has them."""
    from fedmepd.data.findings import advice_for_a_run
    from fedmepd.data.ownership import OWN

    said = _reading(options)
    # Labels and links of both data sets of a hospital are read alike.
    if not said or (OWN in sites and not options.pattern):
        return
    names = " and ".join(dict.fromkeys(word for word in said if word.startswith("--")))
    one = next(site for site in sites if site != OWN)
    command = f"`fedmepd data check {join([str(options.folder / one), *said])}`"
    raise SettingsError(
        f"{names}: {options.folder} holds {counted(len(sites), 'data set')}: check one alone, {command}; "
        f"{advice_for_a_run(said)}"
    )


def _say(options: argparse.Namespace, text: str) -> None:
    """Prints what is going on, unless standard output is for JSON."""
    if not options.json:
        print(text, end="", flush=True)


def _print_json(
    task: Task,
    datasets: dict[str | None, Dataset],
    findings: list[Finding],
    overlaps: list[str],
    options: argparse.Namespace,
    unread: Collection[str] = (),
) -> int:
    from fedmepd.data.summary import check_content

    content = check_content(task, datasets, findings, overlaps, options.anonymous, unread)
    print(json.dumps(content, indent=2))
    return FAULTY if content["errors"] else 0


def _inspect(dataset: Any, options: argparse.Namespace) -> Any:
    from fedmepd.data.site import inspect_dataset
    from fedmepd.data.summary import describe_found
    from fedmepd.site_settings import SiteSettings

    _say(options, describe_found(dataset) + "\n")
    with progress_bar("reading", "case") as progress:
        return inspect_dataset(
            dataset, SiteSettings.load(cache_needed=False).cache, labels=_labels(options), progress=progress
        )


def _patterns(options: argparse.Namespace) -> list[Pattern]:
    from fedmepd.data.file_kinds import Pattern

    return [Pattern.read(chosen_task(options, [options.labels]), text) for text in options.pattern]


def _labels(options: argparse.Namespace) -> str | None:
    return convention_of(chosen_task(options, [options.labels]), options.labels)


def _check_sites(sites: dict[str, Dataset], findings: list[Finding], options: argparse.Namespace) -> int:
    from fedmepd.data.findings import ERROR, NOTE, WARNING, advice_for_a_run
    from fedmepd.data.ownership import OWN
    from fedmepd.data.same_patients import find_common, overlaps
    from fedmepd.text_table import table

    task = chosen_task(options, [options.labels])
    folders = {site: options.folder / site for site in sites}
    if options.anonymous and OWN not in sites:
        # Whoever has misread a hospital's folder as a federation's would send names of patients.
        alias = _numbered(sites)
        sites = {alias[site]: dataset for site, dataset in sites.items()}
        folders = {alias[site]: folder for site, folder in folders.items()}
    common = [] if OWN in sites else find_common(folders, [task])
    findings = [*(one.finding() for one in common), *findings]
    heads = ["site", "cases", "train", "validation", "test", "unlabelled", "errors", "modalities"]
    inspections, rows = {}, []
    for site, dataset in sites.items():
        _say(options, f"{site}: ")
        if linked := next((one for one in common if site in one.linked), None):
            _say(options, f"not read, since {linked.public}\n")
            rows.append([site, "not read", *[""] * (len(heads) - 2)])
            continue
        inspection = inspections[site] = _inspect(dataset, options)
        findings += inspection.findings
        rows += _rows(task, site, dataset, inspection)
    shared = overlaps(inspections)
    findings += shared
    lines = [one.public for one in common] + [one.text for one in shared]
    if options.json:
        wrong = [one.public for one in common] + [one.text for one in shared if one.severity == ERROR]
        return _print_json(task, sites, findings, wrong, options, sites.keys() - inspections.keys())
    _print_findings(findings, options, (ERROR, WARNING))
    print("\n".join(["", *table(heads, rows), ""]))
    if any(_OPEN in row for row in rows):
        print(f"{_OPEN}: without a manifest, data.train, data.validation and the seed of the job decide")
    # A file that was refused has not been compared.
    unsure = ", as far as their files could be read" if any(found.severity == ERROR for found in findings) else ""
    print("\n".join(lines or [f"the sites are disjoint: no two share a volume's content or a patient's name{unsure}"]))
    # A hospital's folder is read with the options, a federation's as a run reads it.
    said = _reading(options) if OWN in sites else [found.text for found in findings if found.severity != NOTE]
    cases = sum(len(inspection.cases) for inspection in inspections.values())
    return _conclude(findings, options, cases, advice_for_a_run(said))


def _numbered(sites: Iterable[str]) -> dict[str, str]:
    """What sites are called where no folder may be named; which one holds the fusion cases is no secret."""
    from fedmepd.config import FUSION_SITE

    numbers = itertools.count(1)
    return {site: site if site == FUSION_SITE else f"folder {next(numbers)}" for site in sites}


def _rows(task: Task, site: str, dataset: Dataset, inspection: Inspection) -> Iterator[list[str]]:
    """The rows of a site in the table of a federation: of its own cases, and of those that are for fusion training."""
    from fedmepd.data.findings import ERROR
    from fedmepd.data.ownership import own_cases

    marked = [case for case in inspection.cases if case.for_fusion]
    for name, cases in ((site, own_cases(inspection.cases)), (f"{site}, for fusion", marked)):
        if name != site and not cases:
            continue
        whose = inspection.only(cases)
        parts = [_OPEN] * 3
        if dataset.parts is not None:
            counts = Counter(dataset.parts[case.name] for case in cases)
            parts = [counts[part] for part in ("train", "validation", "test")]
        errors = sum(found.severity == ERROR for of_case in whose.of_cases for found in of_case)
        # What concerns the whole data set is counted once.
        errors += sum(found.severity == ERROR for found in whose.general) * (name == site)
        unlabelled = sum(case.label is None for case in cases)
        there = {modality for case in cases for modality in case.modalities}
        names = " ".join(name for name in task.modalities if name in there)
        yield [name, *map(str, [len(cases), *parts, unlabelled, errors]), names]


def _print_findings(findings: list[Any], options: argparse.Namespace, severities: Sequence[str]) -> None:
    """Prints findings: with names of cases and files, unless the output is to be sent."""
    from fedmepd.data.findings import ERROR, MOST_SHOWN, NOTE, WARNING
    from fedmepd.data.summary import describe_findings

    named = () if options.anonymous else (ERROR, WARNING, *([NOTE] if options.details else []))
    lines = describe_findings(findings, severities, named, None if options.details else MOST_SHOWN)
    if lines:
        print("\n".join(lines))


def _conclude(findings: list[Any], options: argparse.Namespace, cases: int, advice: str = "") -> int:
    from fedmepd.data.findings import ERROR, NOTE

    _print_findings(findings, options, (NOTE,))
    print()
    if advice:
        print(advice)
    errors = sum(found.severity == ERROR for found in findings)
    if not errors:
        print(f"no error in {counted(cases, 'case')}")
        return 0
    hint = "; docs/data.md says what each message means"
    print(f"{counted(errors, 'error')}: a site with this data would refuse to train{hint}")
    return FAULTY


def _source(
    options: argparse.Namespace, earlier: Path | None = None, without: str | None = None
) -> tuple[Source, Path | None]:
    from fedmepd.data.source import open_source
    from fedmepd.data.summary import describe_found
    from fedmepd.site_settings import SiteSettings

    options.validation = _SHARES["validation"] if options.validation is None else options.validation
    if not (0 < options.train <= 1 and 0 <= options.validation and options.train + options.validation <= 1 + 1e-9):
        raise SettingsError(
            f"--train {options.train} --validation {options.validation}: expected shares above 0, at most 1 together"
        )
    cache = SiteSettings.load(cache_needed=False).cache
    with progress_bar("reading", "case") as progress:
        source = open_source(
            chosen_task(options, [options.labels]),
            options.folder,
            labels=_labels(options),
            follow_links=options.follow_links,
            skip_faulty=options.skip_faulty,
            cache=cache,
            earlier=earlier,
            without=without,
            patterns=_patterns(options),
            found=lambda dataset: print(describe_found(dataset), flush=True),
            progress=progress,
        )
    if source.left_out:
        print(f"left out {counted(source.left_out, 'case')} with errors")
    return source, cache


def _init(options: argparse.Namespace) -> None:
    from fedmepd.config import FUSION_SITE
    from fedmepd.data.fusion_choice import FusionChoice
    from fedmepd.data.manifest import FILE_NAME
    from fedmepd.data.ownership import has_fusion_folder
    from fedmepd.data.site_folder import plan_site, write_site

    choice = None if options.fusion is None else FusionChoice.read(options.fusion)
    task = chosen_task(options, [options.labels])
    apart = options.folder / FUSION_SITE if has_fusion_folder(task, options.folder) else None
    if apart and choice:
        raise SettingsError(f"--fusion {options.fusion}: {apart} holds the cases for fusion training: leave one out")
    local = None if options.kit is None else _kit_settings(options.kit)
    validation_asked = bool(options.validation)
    in_place = options.out is None
    if in_place and options.copy:
        raise SettingsError("--copy: expected --out, the folder to copy to")
    if not in_place:
        _require_outside(options)
    folder = (options.folder.parent if options.folder.is_file() else options.folder) if in_place else options.out
    source, cache = _source(options, earlier=folder, without=FUSION_SITE)
    site = plan_site(
        chosen_task(options, [options.labels]),
        folder,
        source.inspection.cases,
        in_place=in_place,
        shares=options,
        seed=options.seed,
        name="site",
        cache=cache,
        fusion=choice,
        patterns=source.patterns,
    )
    parts = Counter(entry.part for entry in site.manifest.cases if not entry.fusion)
    fusion = Counter(entry.part for entry in site.manifest.cases if entry.fusion)
    _refuse_useless(parts + fusion, options.validation if validation_asked else 0)
    _tell_findings(source.inspection)
    with elsewhere_with("--out"):
        changed = write_site(site, copy=options.copy)
    print(
        f"{folder / FILE_NAME} {'written' if changed else 'is up to date'}: train {parts['train']}, validation "
        f"{parts['validation']}, test {parts['test']}, without a label (inference only) {parts[None]}"
    )
    if fusion:
        print(
            f"for fusion training: train {fusion['train']}, validation {fusion['validation']}, test {fusion['test']}, "
            f"without a label (inference only) {fusion[None]}"
        )
    if apart:
        todo = f": make a data set of that folder too, `fedmepd data init {quote(str(apart))}`"
        print(f"the cases in {apart} are for fusion training{'' if (apart / FILE_NAME).is_file() else todo}")
    there = {modality for entry in site.manifest.cases if entry.part for modality in entry.images}
    print(f"modalities of the site: {' '.join(name for name in chosen_task(options).modalities if name in there)}")
    if fusion and not parts.total():
        print("no case is the site's own: it can take part as the fusion site alone")
    elif not parts["train"]:
        print("no case of its own to train on: it can take part as the fusion site alone")
    for part, use in (("validation", "the last model is taken, and not the best one"), ("test", "nothing is tested")):
        if parts["train"] and not parts[part]:
            print(f"no {part} case: {use}; more patients, or another share, would give one")
    if fusion and not fusion["train"]:
        print("no case to train on among those for fusion training: choose more patients")
    # Of a site's data folder, fusion is the sub-folder with the cases for fusion training.
    place = folder.absolute().parent if folder.absolute().name == FUSION_SITE else folder.absolute()
    if local is None:
        print(f"to train on it: FEDMEPD_DATA={quote(str(place))}, or data in local/fedmepd.json of a FLARE kit")
    else:
        _point_kit(local, place)
        print(f"{local} points to {place}")


def _require_outside(options: argparse.Namespace) -> None:
    """Refuses to make data sets among the cases that they are made of: the next time they would be cases too."""
    if options.out.resolve().is_relative_to(options.folder.resolve()):
        raise FedMEPDError(f"{options.out} is inside {options.folder}: choose a folder outside the data set")


def _refuse_useless(parts: Counter[str | None], validation: float) -> None:
    """Refuses a data set that nobody could train on, or that lacks the validation cases that were asked for."""
    if not parts["train"]:
        raise DataError(
            "no case to train on: a site needs at least one case with a label; `fedmepd predict` segments cases "
            "without a label, and needs no data set"
        )
    labelled = parts.total() - parts[None]
    if validation and not parts["validation"]:
        raise DataError(
            f"--validation {validation:g} of {counted(labelled, 'labelled case')} gives no validation case: raise the "
            "share, or leave the option out"
        )


def _tell_findings(inspection: Any) -> None:
    from fedmepd.data.findings import NOTE, WARNING
    from fedmepd.data.summary import describe_findings

    if lines := describe_findings(inspection.findings, (WARNING, NOTE), (WARNING,)):
        print("\n".join([*lines, ""]))


def _kit_settings(kit: Path) -> Path:
    """Returns a kit's file with the settings of its machine, which has been read once: it will be changed."""
    from fedmepd.site_settings import FILE_NAME, kept_values

    if not (kit / "local").is_dir():
        raise SettingsError(f"{kit} is no FLARE kit: expected a folder with a sub-folder local{like_path(kit)}")
    file = kit / "local" / FILE_NAME
    kept_values(file)
    return file


def _point_kit(file: Path, folder: Path) -> None:
    from fedmepd.site_settings import kept_values
    from fedmepd.storage import write_json

    write_json(file, {**kept_values(file), "data": str(folder)})


def _split(options: argparse.Namespace) -> None:
    from fedmepd.data.distribution import protocol_plan, read_plan
    from fedmepd.data.federation_split import split_source
    from fedmepd.data.ownership import has_fusion_folder
    from fedmepd.text_table import table

    _require_outside(options)
    task = chosen_task(options, [options.labels])
    if has_fusion_folder(task, options.folder):
        raise DataError(
            f"{options.folder} has a sub-folder for fusion training, as the folder of a federation or of a hospital "
            "has: name the folder of one data set"
        )
    source, cache = _source(options)
    labelled = sum(case.label is not None for case in source.inspection.cases)
    plan = None
    if options.protocol:
        plan = protocol_plan(task, options.protocol)
    elif options.sites:
        plan = read_plan(task, options.sites, labelled)
    how = {name: getattr(options, name) for name in ("seed", "train", "validation", "protocol")}
    made, changed = split_source(
        task,
        source,
        options.out,
        plan=plan,
        lists=options.split_dir,
        partition=options.partition,
        copy=options.copy,
        shares=options,
        seed=options.seed,
        cache=cache,
        how=how,
    )
    _tell_findings(source.inspection)
    rows = []
    for site in made:
        parts = Counter(entry.part for entry in site.manifest.cases)
        patients = len({entry.patient for entry in site.manifest.cases})
        numbers = [len(site.manifest.cases), patients, parts["train"], parts["validation"], parts["test"]]
        names = " ".join(site.plan.modalities)
        rows.append([site.plan.name, *map(str, numbers), f"{median(site.tumour_ml):.1f}", names])
    heads = ["site", "cases", "patients", "train", "validation", "test", "labelled ml", "modalities"]
    print("\n".join(["", *table(heads, rows), ""]))
    over = len(source.inspection.cases) - sum(len(site.manifest.cases) for site in made)
    if over:
        print(f"left over: {counted(over, 'case')}")
    print(f"{options.out} {'written' if changed else 'is up to date'}")
    _tell_training(task, options.out, [site.plan.name for site in made])


def _tell_training(task: Task, out: Path, names: list[str]) -> None:
    """Prints the command that trains on the sites of a folder."""
    from fedmepd.config import FUSION_SITE
    from fedmepd.data.distribution import protocol_names
    from fedmepd.tasks.find import DEFAULT

    place, sites = quote(str(out.absolute())), [name for name in names if name != FUSION_SITE]
    missing = "" if FUSION_SITE in names else " --fusion-site NAME"
    other = "" if task.name == DEFAULT else f" --set task={task.name}"
    print(f"to train on it: python job.py --data {place}{other}{missing}")
    if missing:
        print(f"NAME is the site with the cases for fusion training, as no folder is called {FUSION_SITE}")
    elif sites == protocol_names() and not other:
        print(f"or: FEDMEPD_DATA={place} nvflare simulator jobs/fedmepd_brats -w workspace/flare -t {len(sites)}")
    else:
        print(
            f"or: python job.py{other} --export jobs_own && FEDMEPD_DATA={place} nvflare simulator "
            f"jobs_own/fedmepd_{task.name} -w workspace/flare -c {','.join(sites)} -t {len(sites)}"
        )
