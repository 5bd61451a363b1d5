"""The command ``fedmepd evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedmepd.cli.predict import SEGMENTER_OPTIONS, add_segmenter_options, open_segmenter
from fedmepd.cli.tasks import add_task_option, chosen_task, convention_of, conventions_help, with_label_maps
from fedmepd.cli.terminal import progress_bar, require_absent, warn
from fedmepd.errors import DataError, SettingsError
from fedmepd.storage import require_writable
from fedmepd.text_table import counted

if TYPE_CHECKING:
    from fedmepd.data.inspection import Inspection
    from fedmepd.evaluation.measures import RegionMeasures
    from fedmepd.segmentation.segmenter import Segmenter
    from fedmepd.tasks.task import Task

_PARTS = ("test", "validation", "train", "all")


def add_evaluate_command(topics: argparse._SubParsersAction) -> None:
    """Adds it to the parser of ``fedmepd``."""
    evaluate = topics.add_parser(
        "evaluate",
        help="score segmentations, or a model, against labels",
        description="Scores segmentations against labels, or a model on the labelled cases of a data set: Dice, HD95, "
        "sensitivity, specificity and volumes by case and region, with mean, median and 95 % interval. Exit status: 0 "
        "scored, 2 refused. If one case cannot be scored, none is.",
        allow_abbrev=False,
    )
    evaluate.add_argument(
        "folder", type=Path, nargs="?", help="with --model: the data set, in any layout that `fedmepd data check` knows"
    )
    evaluate.add_argument("--predictions", type=Path, metavar="P", help="file or folder of segmentations")
    evaluate.add_argument("--labels", type=Path, metavar="L", help="file or folder of labels, in any known layout")
    evaluate.add_argument("--out", type=Path, metavar="FOLDER", help="write evaluation.csv and evaluation.json there")
    evaluate.add_argument("--json", action="store_true", help="print evaluation.json instead of the table")
    evaluate.add_argument(
        "--label-values",
        metavar="VALUES",
        help=f"meaning of the labels' values: {conventions_help()}; default: decided by layout and values",
    )
    evaluate.add_argument(
        "--prediction-values",
        metavar="VALUES",
        help="with --predictions: the same for them; default: decided by their values",
    )
    add_task_option(evaluate, "the model's, or brats")
    evaluate.add_argument("--part", choices=_PARTS, help="with --model: part of the manifest to score; default: test")
    evaluate.add_argument("--seed", type=int, default=0, help="seed of the bootstrap; default: 0")
    evaluate.add_argument("--follow-links", action="store_true", help="read links that lead out of a case's folder")
    add_segmenter_options(evaluate, required=False)
    evaluate.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from fedmepd.evaluation.scores import CSV_NAME, JSON_NAME, build, console_table, write

    given = [value is not None for value in (options.predictions, options.labels, options.model, options.folder)]
    by_files, by_model = given == [True, True, False, False], given == [False, False, True, True]
    if not (by_files or by_model):
        raise SettingsError("expected either --predictions and --labels, or --model and a data set's folder")
    if by_files and options.part:
        raise SettingsError("--part: expected with --model alone; --predictions says which cases are scored")
    if by_files:
        require_absent(options, SEGMENTER_OPTIONS, "expected with --model alone; nothing is segmented")
    if by_model and options.prediction_values:
        raise SettingsError("--prediction-values: expected with --predictions alone")
    if options.seed < 0:
        raise SettingsError(f"--seed {options.seed}: expected 0 or more")
    # Checked first, because scoring may take an hour.
    if options.out is not None and (there := [name for name in (CSV_NAME, JSON_NAME) if (options.out / name).exists()]):
        raise SettingsError(f"--out {options.out} has an {there[0]} already: choose another folder")
    if options.out is not None:
        require_writable(options.out, "--out")
    if by_files:
        task = chosen_task(options, [options.label_values, options.prediction_values])
        cases, unmatched = _score_files(task, options)
    else:
        segmenter = open_segmenter(options)
        task, unmatched = segmenter.task, {}
        if options.task not in (None, task.name):
            raise SettingsError(f"--task {options.task}: {options.model} is a model of task {task.name}")
        cases = _score_model(segmenter, options)
    report = build(task, cases, seed=options.seed, **unmatched)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print("\n".join([f"scored {counted(len(cases), 'case')}", "", console_table(report)]))
    if options.out is not None:
        written = write(options.out, report)
        if not options.json:
            print(f"wrote {' and '.join(map(str, written))}")


def _score_files(
    task: Task, options: argparse.Namespace
) -> tuple[dict[str, dict[str, RegionMeasures]], dict[str, list[str]]]:
    from fedmepd.evaluation.measures import measure_case
    from fedmepd.evaluation.pairs import check, match, read_classes
    from fedmepd.site_settings import SiteSettings

    matched = match(
        task,
        options.predictions,
        options.labels,
        follow_links=options.follow_links,
        cache=SiteSettings.load(cache_needed=False).cache,
    )
    _tell_unmatched(matched.without_label, "predictions without a label")
    _tell_unmatched(matched.without_prediction, "labels without a prediction")
    with progress_bar("reading", "file") as progress:
        pairs, warnings = check(
            matched,
            prediction_values=convention_of(task, options.prediction_values),
            label_values=convention_of(task, options.label_values),
            progress=progress,
        )
    for line in warnings:
        warn(line)
    cases = {}
    with progress_bar("scoring", "case") as progress:
        for number, pair in enumerate(pairs, 1):
            prediction, spacing = read_classes(pair.prediction)
            label, _ = read_classes(pair.label)
            cases[pair.name] = measure_case(task, prediction, label, spacing, pair.label.label_groups)
            progress(number, len(pairs))
    return cases, {"without_label": matched.without_label, "without_prediction": matched.without_prediction}


def _tell_unmatched(names: Sequence[str], what: str) -> None:
    from fedmepd.data.findings import MOST_SHOWN

    if names:
        more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
        warn(f"{what}, left out ({len(names)}): {', '.join(names[:MOST_SHOWN])}{more}")


def _score_model(segmenter: Segmenter, options: argparse.Namespace) -> dict[str, dict[str, RegionMeasures]]:
    import numpy as np

    from fedmepd.data.findings import MOST_SHOWN
    from fedmepd.data.preparation import classes_of_label
    from fedmepd.evaluation.measures import measure_case
    from fedmepd.evaluation.pairs import read_classes
    from fedmepd.segmentation.limits import limits_of_cases

    task = segmenter.task
    inspection = _inspect_labelled(task, options)
    labelled = inspection.cases
    usable = [segmenter.usable(case) for case in labelled]
    unlike = [
        finding.text
        for case, facts in zip(usable, inspection.facts, strict=True)
        for finding in segmenter.unlike_training(case, facts)
    ]
    for line in [
        *limits_of_cases(task, labelled, segmenter.modalities, segmenter.phantoms),
        *unlike[:MOST_SHOWN],
        *([f"{counted(len(unlike) - MOST_SHOWN, 'more line')} of this kind"] if len(unlike) > MOST_SHOWN else []),
    ]:
        warn(line)
    cases = {}
    for case, unlabelled in zip(labelled, usable, strict=True):
        with progress_bar(case.name, "window") as progress:
            segmentation = segmenter.segment(unlabelled, progress)
        # By way of the image that `fedmepd predict` writes, so that both give the same scores.
        values = np.asarray(segmentation.image(task.default_convention, like=case.label).dataobj)
        label, spacing = read_classes(case)
        predicted = classes_of_label(task, values, task.default_convention)
        cases[case.name] = measure_case(task, predicted, label, spacing, case.label_groups)
        dice = ", ".join(f"{region} {of.dice:.3f}" for region, of in cases[case.name].items())
        # With --json nothing but JSON goes to standard output.
        print(f"{case.name}: Dice {dice}", file=sys.stderr if options.json else sys.stdout, flush=True)
    return cases


def _inspect_labelled(task: Task, options: argparse.Namespace) -> Inspection:
    """The cases of the data set's part, checked as before training."""
    from fedmepd.data.inspection import for_a_model, inspect_cases
    from fedmepd.data.opening import nameable, open_dataset
    from fedmepd.site_settings import SiteSettings

    cache = SiteSettings.load(cache_needed=False).cache
    task = with_label_maps(task, [options.label_values])
    dataset = open_dataset(task, options.folder, follow_links=options.follow_links, cache=cache)
    cases, problems = nameable(dataset)
    if problems:
        raise DataError(problems[0], lines=problems[1:])
    part = options.part or ("test" if dataset.parts is not None else "all")
    if dataset.parts is None:
        if part != "all":
            raise SettingsError(f"--part {part}: {options.folder} has no manifest that says which cases these are")
        warn(
            f"{options.folder} has no manifest: if the model was trained on some of these cases, the scores flatter it"
        )
    elif part != "all":
        cases = [case for case in cases if dataset.parts[case.name] == part]
    # The patient matters for training and testing, but not for a score.
    cases = [replace(case, patient_doubt="") for case in cases if case.label is not None]
    if not cases:
        raise DataError(
            f"{options.folder} has no labelled case to score" + ("" if part == "all" else f" in part {part}")
        )
    with progress_bar("reading", "case") as progress:
        inspection = inspect_cases(
            cases,
            labels=convention_of(task, options.label_values),
            option="--label-values",
            cache=cache,
            progress=progress,
        )
    inspection.require_good()
    for finding in for_a_model([*dataset.findings, *inspection.findings]):
        warn(finding.text)
    return inspection
