"""Time and memory of segmenting one case of real size: ``python -m benchmarks.inference``.

A volume of 240 x 240 x 155 voxels, sliding windows of 80 that overlap by half, for the modality subsets of the
protocol:

- ``straightforward``: every window, all encoders, float32, MONAI's sliding window;
- ``product``: the same array and windows; it may pass over windows without brain;
- ``cropped``: the product on the box around the brain, which is how sites keep their cases.

Each run is a new process. Before, the product trains a model for a short time on phantom heads with random modality
subsets, unless one is given. The case is a phantom head that it has not seen, unless one is given.

The report has a row for each modality subset, ``modalities``: of the three ``seconds``, ``mib`` (peak) and
``above_mib`` (peak without what was held before), each with median, lowest and highest; ``ratio`` of straightforward to
product and ``ratio_cropped`` of straightforward to cropped seconds; by region and class ``dice`` of the segmentations
of straightforward and product inside the brain, ``dice_everywhere`` outside it too (of windows without brain the
straightforward formulation makes what the normalisation of rounding errors gives), ``dice_cropped`` of straightforward
and cropped inside the brain, and ``dice_with_label`` of straightforward and label. ``mean_ratio`` is the mean of the
rows' median ratios, ``lowest_dice`` the lowest Dice inside the brain of a region.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from benchmarks import measure, straightforward
from benchmarks.heads import BRAIN, CROP, VOLUME, bounding_box, brain_for, head, in_volume, normalised
from benchmarks.measure import Pairs, Run, Spread
from benchmarks.task import Task, add_precision_argument, add_task_arguments, sites
from fedmepd.cli.terminal import positive
from fedmepd.config import EvaluationSettings
from fedmepd.data.inspection import inspect_cases
from fedmepd.data.layouts import find_dataset
from fedmepd.data.preparation import read_case
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.networks.network import FedMEPDNet
from fedmepd.storage import load_tensors, save_tensors
from fedmepd.tasks.brats import BRATS
from fedmepd.training.arithmetic import use_threads
from fedmepd.training.checkpoints import About, load_model, save_model
from fedmepd.training.epoch import EpochReport, train_epoch
from fedmepd.training.inference import predict
from tests.networks import ours

SIDES = ("straightforward", "product", "cropped")
OVERLAP = 0.5

# The model is trained on the first phantoms and measured on another.
_TRAINING_HEADS, _CASE = 8, 40


@measure.command
def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.arguments("Segmenting a whole case, straightforward formulation against product.", pairs=1)
    add_task_arguments(parser, width=16, crop=CROP)
    add_precision_argument(parser)
    parser.add_argument("--steps", type=positive, default=200, help="of the training; default: 200")
    parser.add_argument(
        "--model", type=Path, help="the model to use; if there is none, one is trained and written there"
    )
    parser.add_argument("--case", type=Path, help="the folder of a labelled case to segment instead of a phantom")
    options = parser.parse_args(given)
    if options.device != "cpu":
        parser.error("inference is measured on the processor: expected --device cpu")
    use_threads(options.threads)
    if options.quick:
        options.width, options.crop, options.steps = 4, 16, 2
    with TemporaryDirectory() as folder:
        model = options.model or Path(folder) / "model.pt"
        if not model.exists():
            train(model, options)
        case = Path(folder) / "case.pt"
        save_tensors(case, real_case(options.case) if options.case else phantom_case(options.crop))
        rows = [_row(subset, model, case, options) for subset in _subsets(options, model, case)]
    _report(rows, options)
    return 0


def train(path: Path, options: argparse.Namespace) -> None:
    """Trains a model with calibration on phantom heads, each step with one of the modality subsets, and writes it."""
    task = Task(
        BRATS.modalities,
        options.width,
        options.crop,
        preset="phantom",
        calibrating=False,
        heads=_TRAINING_HEADS,
        device=options.device,
    )
    product, report = task.product(), EpochReport()
    random, subsets = np.random.default_rng(task.seed), sites(options)

    def progress(step: int, loss: float) -> None:
        if step % 20 == 0:
            print(f"training: step {step} of {options.steps}, loss {loss:.3f}", flush=True)

    train_epoch(
        product.network,
        product.optimizer,
        task.batches(options.steps),
        report,
        precision=product.precision,
        abort=lambda: False,
        progress=progress,
        choose_modalities=lambda _: subsets[random.integers(len(subsets))],
    )
    save_model(path, product.network, About("benchmark", "fusion_only", 0))


def phantom_case(crop: int) -> dict:
    """Returns a phantom as large beside windows of ``crop`` as a real case beside windows of 80.

    Returns:
        ``modalities``, ``images`` (M, X, Y, Z) and ``label`` (X, Y, Z).
    """
    volume = VOLUME if crop == CROP else tuple(round(side * crop / CROP) for side in VOLUME)
    made = in_volume(head(_CASE, BRAIN if crop == CROP else brain_for(crop)), volume)
    return {"modalities": list(BRATS.modalities), "images": made.images, "label": made.label}


def real_case(folder: Path) -> dict:
    """Reads a case as it is, not cropped; returns what :func:`phantom_case` does.

    Raises:
        DataError: there is no labelled case.
    """
    found = [case for case in find_dataset(BRATS, folder.absolute().parent).cases if case.name == folder.name]
    if not found or found[0].label is None or not found[0].images:
        raise DataError(
            f"{folder} is no folder of a labelled case: expected files such as 001_flair.nii.gz, 001_seg.nii.gz"
        )
    [case] = inspect_cases(found).cases
    read = read_case(case)
    normal = torch.cat([normalised(image[None], image > 0) for image in read["image"].clamp_min(0)])
    return {"modalities": list(case.modalities), "images": normal, "label": read["label"][0].long()}


def _subsets(options: argparse.Namespace, model: Path, case: Path) -> list[tuple[str, ...]]:
    there = set(load_model(model).modalities) & set(load_tensors(case)["modalities"])
    subsets = [subset for subset in dict.fromkeys(sites(options)) if there.issuperset(subset)]
    if not subsets:
        raise FedMEPDError(f"model and case have {', '.join(sorted(there))} in common: choose some of them by --subset")
    return subsets


def prepare(
    side: str,
    model: Path,
    case: Path,
    modalities: tuple[str, ...],
    crop: int,
    threads: int,
    precision: str,
    device: str = "cpu",
) -> Callable[[], np.ndarray]:
    """Makes the segmentation of a case ready.

    Args:
        side: one of :data:`SIDES`.
        model, case: files.
        modalities: to use.
        crop: side of the windows.
        threads: of the processor; 0 for PyTorch's choice.
        precision: of the product.
        device: where the network is.

    Returns:
        the work, which returns the classes (X, Y, Z) as an array of bytes.
    """
    use_threads(threads)
    network, content = load_model(model).to(device), load_tensors(case)
    channels = [content["modalities"].index(name) for name in modalities]
    images = content["images"][channels][None].clone()
    size = images.shape[2:]
    box = bounding_box((images[0] != 0).any(dim=0)) if side == "cropped" else tuple(slice(0, side) for side in size)
    images = images[:, :, *box].contiguous()
    segment = _straightforward(network, crop) if side == "straightforward" else _product(network, crop, precision)

    def work() -> np.ndarray:
        whole = torch.zeros(size, dtype=torch.uint8)
        whole[box] = segment(images, modalities).to(torch.uint8)
        return whole.numpy()

    return work


def _straightforward(network: FedMEPDNet, crop: int) -> Callable[[Tensor, Sequence[str]], Tensor]:
    device = next(network.parameters()).device
    weights = {name: weight.to(device) for name, weight in ours.published(network.cpu()).items()}
    anchors = {level: rows.to(device) for level, rows in network.anchors.items()}
    residual = network.calibration is not None and next(iter(network.calibration.values())).residual
    return lambda images, modalities: straightforward.predict(
        weights, images.to(device), modalities, anchors or None, residual, crop, OVERLAP
    )


def _product(network: FedMEPDNet, crop: int, precision: str) -> Callable[[Tensor, Sequence[str]], Tensor]:
    settings = EvaluationSettings(window=crop, overlap=OVERLAP)
    return lambda images, modalities: predict(network, images, modalities, settings, precision)


def _row(modalities: tuple[str, ...], model: Path, case: Path, options: argparse.Namespace) -> dict:
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    for pair in range(options.pairs):
        for side in SIDES if pair % 2 == 0 else reversed(SIDES):
            given = (side, model, case, modalities, options.crop, options.threads, options.precision)
            runs[side].append(measure.in_fresh_process(prepare, *given))
            print(f"{' '.join(modalities)}, {side}: {runs[side][-1].seconds:.1f} s", flush=True)
    content = load_tensors(case)
    plain, product, cropped = (torch.from_numpy(runs[side][0].result) for side in SIDES)
    channels = [content["modalities"].index(name) for name in modalities]
    brain = (content["images"][channels] != 0).any(dim=0)
    plain_seconds, product_seconds, cropped_seconds = ([run.seconds for run in runs[side]] for side in SIDES)

    def of_sides(value: Callable[[Run], float]) -> dict[str, dict[str, float]]:
        return {side: Spread.of([value(run) for run in runs[side]]).as_dict() for side in SIDES}

    return {
        "modalities": list(modalities),
        "seconds": of_sides(lambda run: run.seconds),
        "mib": of_sides(lambda run: run.peak_mib),
        "above_mib": of_sides(lambda run: run.above_mib),
        "ratio": Pairs(plain_seconds, product_seconds).ratio().as_dict(),
        "ratio_cropped": Pairs(plain_seconds, cropped_seconds).ratio().as_dict(),
        "dice": dice(plain[brain], product[brain]),
        "dice_everywhere": dice(plain, product),
        "dice_cropped": dice(plain[brain], cropped[brain]),
        "dice_with_label": dice(plain[brain], content["label"][brain]),
    }


def dice(first: Tensor, second: Tensor) -> dict[str, float]:
    """Returns the Dice of two segmentations by region and by class; 1 where both have nothing."""
    groups = BRATS.regions | {name: (number,) for number, name in enumerate(BRATS.classes) if number > 0}
    found = {}
    for name, classes in groups.items():
        one, other = (torch.isin(segmentation, torch.tensor(classes)) for segmentation in (first, second))
        total = int(one.sum() + other.sum())
        found[name] = 2 * int((one & other).sum()) / total if total else 1.0
    return found


def _report(rows: list[dict], options: argparse.Namespace) -> None:
    here = measure.environment()
    summary = {
        "mean_ratio": fmean(row["ratio"]["median"] for row in rows),
        "lowest_dice": min(row["dice"][region] for row in rows for region in BRATS.regions),
    }
    print(f"\nOne case, windows of {options.crop}, overlap {OVERLAP}; {measure.describe(here)}\n")
    cells = []
    for row in rows:
        seconds = [Spread(**row["seconds"][side]).text(1) for side in SIDES]
        ratios = [Spread(**row[name]).text(1) for name in ("ratio", "ratio_cropped")]
        memory = [Spread(**row["mib"][side]).text(0) for side in SIDES]
        cells.append([" ".join(row["modalities"]), *seconds, *ratios, *memory])
    headers = [*(f"{side} s" for side in SIDES), "ratio", "ratio, cropped", *(f"{side} MiB" for side in SIDES)]
    print(measure.table(["modalities", *headers], cells))
    print(f"\nmean ratio of the subsets: {summary['mean_ratio']:.2f}")
    print("\nDice of the segmentations of straightforward and product inside the brain; of the whole tumour (WT) also")
    print("with what is outside, of straightforward and cropped, and of straightforward and label\n")
    names = list(rows[0]["dice"])
    others = {"WT everywhere": "dice_everywhere", "WT, cropped": "dice_cropped", "WT, label": "dice_with_label"}
    cells = [
        [
            " ".join(row["modalities"]),
            *(f"{row['dice'][name]:.4f}" for name in names),
            *(f"{row[key]['WT']:.4f}" for key in others.values()),
        ]
        for row in rows
    ]
    print(measure.table(["modalities", *names, *others], cells))
    size = {name: getattr(options, name) for name in ("crop", "pairs", "steps", "precision")}
    print(f"wrote {measure.write_report('inference', options.json, here, rows, **size, **summary)}")


if __name__ == "__main__":
    sys.exit(main())
