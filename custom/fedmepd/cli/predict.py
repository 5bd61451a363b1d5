"""The command ``fedmepd predict``, and the options that it shares with ``fedmepd evaluate``."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedmepd.cli.tasks import conventions_help, image_destination, image_options
from fedmepd.cli.terminal import progress_bar, require_absent, warn
from fedmepd.errors import FedMEPDError, SettingsError
from fedmepd.storage import locked, require_writable
from fedmepd.text_table import counted

if TYPE_CHECKING:
    from fedmepd.data.cases import Case
    from fedmepd.segmentation.outputs import CaseFiles, VolumeTable
    from fedmepd.segmentation.segmenter import Segmenter
    from fedmepd.tasks.task import Task

# Exit status when some cases of a folder could not be segmented.
SOME_FAILED = 1


def add_predict_command(topics: argparse._SubParsersAction) -> None:
    """Adds it to the parser of ``fedmepd``."""
    predict = topics.add_parser(
        "predict",
        help="segment patients with a trained model",
        description="Segments one case, given by its images, or all cases of a folder. The images must be like those "
        "of the training: in BraTS, registered to each other and skull-stripped. Exit status: 0 all segmented, 1 some "
        "cases of a folder were not, 2 none was.",
        allow_abbrev=False,
    )
    predict.add_argument(
        "folder", type=Path, nargs="?", help="folder of cases or a list, in any layout that `fedmepd data check` knows"
    )
    for option, modality in image_options().items():
        predict.add_argument(
            option,
            type=Path,
            dest=image_destination(option),
            metavar="FILE",
            help=f"{modality} image of a single case",
        )
    predict.add_argument(
        "--out", type=Path, required=True, help="file to write (.nii.gz); for a folder of cases: folder to write"
    )
    _add_labels(predict)
    predict.add_argument("--overlay", action="store_true", help="also draw contours on three planes (PNG)")
    predict.add_argument("--probabilities", action="store_true", help="also write a probability map of each region")
    there = predict.add_mutually_exclusive_group()
    there.add_argument("--overwrite", action="store_true", help="replace existing segmentations")
    there.add_argument("--resume", action="store_true", help="skip cases of a folder that already have a segmentation")
    predict.add_argument(
        "--phantom-model-on-patients",
        action="store_true",
        help="segment patients with a model that was trained on phantoms alone, which is refused otherwise",
    )
    predict.add_argument("--follow-links", action="store_true", help="read links that lead out of a case's folder")
    add_segmenter_options(predict, required=True)
    predict.set_defaults(run=_predict)


def _add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        metavar="VALUES",
        help=f"label values to write: {conventions_help(to_write=True)}; default: the default of the model's task, "
        "brats for BraTS",
    )


SEGMENTER_OPTIONS = ("device", "window", "overlap", "precision", "flips", "min_component", "min_enhancing")
"""Options that say how a model segments; None or false where they are not given."""


def add_segmenter_options(parser: argparse.ArgumentParser, required: bool) -> None:
    """Adds the options that :func:`open_segmenter` reads."""
    alone = "" if required else "; without it, --" + ", --".join(SEGMENTER_OPTIONS).replace("_", "-") + " are refused"
    parser.add_argument(
        "--model", type=Path, required=required, help=f"model of a site or of the server, such as model_best.pt{alone}"
    )
    how = parser.add_argument_group("how to segment")
    how.add_argument(
        "--device", help="auto (the GPU if there is one), cpu, cuda, cuda:1; default: that of the site, or auto"
    )
    how.add_argument(
        "--window", type=int, metavar="VOXELS", help="side of the inference window; default: that of the model's job"
    )
    how.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="overlap of neighbouring windows; default: that of the model's job",
    )
    how.add_argument("--precision", choices=("auto", "float32", "bfloat16"), help="arithmetic; default: auto")
    how.add_argument("--flips", action="store_true", help="average over the 8 mirror images; eight times slower")
    how.add_argument(
        "--min-component",
        type=_millilitres,
        metavar="ML",
        help="remove connected components (of all classes together) below this volume; default: 0, none",
    )
    how.add_argument(
        "--min-enhancing",
        type=_millilitres,
        metavar="ML",
        help="if there is less than this volume of the class that the model's task names (in BraTS the enhancing "
        "tumour), it becomes the other class of the task's rule; default: 0, never",
    )


def _millilitres(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a volume in ml, 0 or more, got {text}")
    return number


def open_segmenter(options: argparse.Namespace) -> Segmenter:
    """Loads the model that the options name.

    Raises:
        FedMEPDError: the file is no model, there is no such device, or an option is out of bounds.
    """
    from fedmepd.segmentation.segmenter import Segmenter
    from fedmepd.site_settings import SiteSettings

    site = SiteSettings.load(cache_needed=False)
    if options.device:
        site = site.model_copy(update={"device": options.device})
    return Segmenter(
        options.model,
        site.torch_device(),
        window=options.window,
        overlap=options.overlap,
        precision=options.precision or "auto",
        flips=options.flips,
        min_component_ml=options.min_component or 0.0,
        min_enhancing_ml=options.min_enhancing or 0.0,
    )


def _predict(options: argparse.Namespace) -> int:
    known = image_options()
    images = {option: getattr(options, image_destination(option)) for option in known}
    given = {option: image for option, image in images.items() if image is not None}
    if (options.folder is None) == (not given):
        raise SettingsError(f"expected either a folder or the images of one case ({', '.join(known)})")
    return _predict_folder(options) if options.folder is not None else _predict_one(options, given)


def _predict_one(options: argparse.Namespace, images: dict[str, Path]) -> int:
    from fedmepd.data.cases import Case
    from fedmepd.segmentation.outputs import VolumeTable, files_beside, require_nifti

    require_absent(options, ("resume", "follow_links"), "expected a folder of cases")
    for option, path in images.items():
        if not path.is_file():
            raise FedMEPDError(f"{option} {path} does not exist: expected a NIfTI file")
        if path.resolve() == options.out.resolve():
            raise FedMEPDError(f"--out {options.out} is the image of {option}: choose another name")
    if options.out.exists() and not options.overwrite:
        raise FedMEPDError(f"{options.out} exists already: choose another name, or say --overwrite")
    require_nifti(options.out)
    segmenter = open_segmenter(options)
    task = segmenter.task
    files, volumes = files_beside(task, options.out, overlay=options.overlay, probabilities=options.probabilities)
    case = Case(files.name, _by_modality(task, images), None, task=task)
    segmenter.usable(case)
    _refuse_strangers([case], segmenter, options)
    _warn_of_limits([case], segmenter)
    require_writable(options.out.absolute().parent, "--out")
    _segment(segmenter, case, files, VolumeTable(task, volumes), _convention(task, options))
    print(f"wrote {options.out} and {volumes}")
    return 0


def _by_modality(task: Task, images: dict[str, Path]) -> dict[str, Path]:
    options = {task.option(modality): modality for modality in task.modalities}
    foreign = [option for option in images if option not in options]
    if foreign:
        raise SettingsError(f"{foreign[0]}: the model is of task {task.name}: expected {', '.join(options)}")
    return {options[option]: path for option, path in images.items()}


def _convention(task: Task, options: argparse.Namespace) -> str:
    return task.default_convention if options.labels is None else task.convention(options.labels)


def _refuse_strangers(cases: Sequence[Case], segmenter: Segmenter, options: argparse.Namespace) -> None:
    """Refuses patients for a model that was trained on phantoms alone, unless the user wants it so.

    Raises:
        SettingsError: there are such cases.
    """
    from fedmepd.segmentation.limits import phantom_line, strangers

    others = strangers(segmenter.phantoms, cases)
    if others and not options.phantom_model_on_patients:
        raise SettingsError(
            f"{options.model}: {phantom_line(others)}. Take a model that was trained on patients, or say "
            "--phantom-model-on-patients to try it"
        )


def _warn_of_limits(cases: Sequence[Case], segmenter: Segmenter) -> None:
    """Says what the model is not for, before anything is computed."""
    from fedmepd.segmentation.limits import limits_of_cases

    for line in limits_of_cases(segmenter.task, cases, segmenter.modalities, segmenter.phantoms):
        warn(line)


def _segment(segmenter: Segmenter, case: Case, files: CaseFiles, volumes: VolumeTable, convention: str) -> None:
    from fedmepd.segmentation.limits import limits_of_case

    started = time.monotonic()
    usable = segmenter.usable(case)
    findings = segmenter.check(usable)
    for finding in findings:
        warn(finding.text)
    with progress_bar(case.name, "window") as progress:
        segmentation = segmenter.segment(usable, progress)
    # The segmentation last: a case that has one is complete, and --resume leaves it out.
    volumes.add(segmentation)
    limits = limits_of_case(case, segmenter.modalities, segmenter.phantoms)
    files.write(segmentation, convention, [finding.kind for finding in (*limits, *findings)])
    numbers = ", ".join(f"{region} {volume:.1f}" for region, volume in segmentation.millilitres.items())
    seconds = time.monotonic() - started
    print(f"{case.name}: ml {numbers}; from {' '.join(usable.modalities)}; {seconds:.0f} s", flush=True)


def _predict_folder(options: argparse.Namespace) -> int:
    from fedmepd.data.inspection import for_a_model
    from fedmepd.data.opening import nameable, open_dataset
    from fedmepd.data.volumes import is_nifti
    from fedmepd.segmentation.outputs import files_in
    from fedmepd.site_settings import SiteSettings

    if options.out.resolve().is_relative_to(options.folder.resolve()):
        raise FedMEPDError(f"--out {options.out} is inside {options.folder}: choose a folder outside the data")
    if options.out.is_file() or is_nifti(options.out):
        raise FedMEPDError(f"--out {options.out}: expected a folder, since {options.folder} is one")
    segmenter = open_segmenter(options)
    task = segmenter.task
    convention = _convention(task, options)
    cache = SiteSettings.load(cache_needed=False).cache
    dataset = open_dataset(task, options.folder, follow_links=options.follow_links, cache=cache)
    cases, problems = nameable(dataset)
    for finding in for_a_model(dataset.findings):
        warn(finding.text)
    files = {
        case.name: files_in(task, options.out, case.name, overlay=options.overlay, probabilities=options.probabilities)
        for case in cases
    }
    done = [name for name, of_case in files.items() if of_case.segmentation.exists()]
    if done and not (options.overwrite or options.resume):
        raise FedMEPDError(
            f"{options.out} holds the segmentations of {len(done)} of {counted(len(cases), 'case')} already: say "
            "--resume to segment the others, or --overwrite"
        )
    _refuse_strangers(cases, segmenter, options)
    require_writable(options.out, "--out")
    writing = f"another `fedmepd predict` writes to {options.out}: wait for its end, or choose another --out"
    with locked(options.out / ".lock", writing):
        return _segment_all(segmenter, cases, files, convention, problems, options)


def _segment_all(
    segmenter: Segmenter,
    cases: Sequence[Case],
    files: dict[str, CaseFiles],
    convention: str,
    problems: Sequence[str],
    options: argparse.Namespace,
) -> int:
    from fedmepd.segmentation.outputs import VOLUMES, VolumeTable

    volumes = VolumeTable(segmenter.task, options.out / VOLUMES)
    # Keep the rows of cases that were segmented into this folder before.
    volumes.keep(path.name.removesuffix(".nii.gz") for path in options.out.glob("*.nii.gz"))
    if options.resume:
        left = [case for case in cases if not files[case.name].segmentation.exists()]
        print(f"segmented already: {counted(len(cases) - len(left), 'case')}; left: {len(left)}", flush=True)
        cases = left
    _warn_of_limits(cases, segmenter)
    for text in problems:
        print(f"error: {text}", file=sys.stderr, flush=True)
    segmented = 0
    for case in cases:
        try:
            _segment(segmenter, case, files[case.name], volumes, convention)
            segmented += 1
        except FedMEPDError as error:
            print(f"error: {case.name} is not segmented: {error}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            there = sum(files[case.name].segmentation.exists() for case in cases)
            # With --overwrite, nobody can tell which of them are new.
            then = "" if options.overwrite else "; the same command with --resume segments the others"
            of_all = f"{there} of {counted(len(cases), 'case')}"
            print(f"segmented {of_all} in {options.out}{then}", file=sys.stderr, flush=True)
            raise
    failed = len(cases) - segmented + len(problems)
    errors = f"; {counted(failed, 'error')}" if failed else ""
    print(f"segmented {segmented} of {counted(len(cases), 'case')} in {options.out}{errors}")
    return SOME_FAILED if failed else 0
