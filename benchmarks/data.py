"""Reading a case, waiting for batches, memory over many epochs: ``python -m benchmarks.data``.

Three parts. Reading: a real-sized case prepared for the first time, against read from the store of prepared cases, and
what makes it be prepared again. Waiting: what steps wait for their batches while a stand-in for the network computes on
all cores, against loading inside the step; the epoch's time also beside that of the steps alone. Memory: what the
process holds after each of 50 epochs over small cases, of loading alone and with training.

The report's rows have a ``part``: ``reading`` (``prepare_seconds``, ``store_seconds``, ``file_bytes``,
``store_bytes``), ``waiting`` (for ``product``, ``straightforward`` and ``steps_alone``: ``epoch_seconds``,
``first_wait``, ``later_wait``, ``waiting_share``) or ``memory`` (``mib`` after each epoch, ``slope`` in MiB an epoch).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from statistics import linear_regression, median
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import torch

from benchmarks import measure
from benchmarks.heads import BRAIN, VOLUME
from benchmarks.phantoms import phantom_data, real_sized_cases
from fedmepd.config import FUSION_SITE, Settings
from fedmepd.data.batches import TrainingBatches
from fedmepd.data.cases import Case
from fedmepd.data.inspection import inspect_cases
from fedmepd.data.layouts import find_dataset
from fedmepd.data.preparation import PreparedCases
from fedmepd.job_settings import make_settings
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from fedmepd.training.arithmetic import use_threads
from fedmepd.training.epoch import EpochReport, make_optimizer, train_epoch

CASES = 4

# Seconds of a step. What need not wait in short ones need not wait in long ones.
STEPS = (0.5, 1.0, 1.5)

EPOCHS = 50
# The first epochs fill pools that stay as they are.
WARMUP = 20
# Growth that counts as none, in MiB an epoch: a few hundred MiB in the 1000 epochs of the paper.
BOUND = 0.25


def settings(crop: int, batch: int = 1, width: int = 16) -> Settings:
    """Returns the paper's settings, rotation included, with some sizes changed."""
    return make_settings("paper", {"network": {"width": width}, "training": {"crop": crop, "batch": batch}})


def reading(case: Case, folder: Path, pairs: int) -> dict[str, Any]:
    """Measures how long a case takes to prepare, and to read once it is prepared; returns a row of the report.

    Args:
        case: to read.
        folder: for the stores.
        pairs: measurements of each.
    """
    fresh = (folder / f"fresh-{number}" for number in count())
    store = folder / "store"

    def prepare() -> dict[str, Any]:
        return PreparedCases([case], next(fresh))[0]

    def read() -> dict[str, Any]:
        return PreparedCases([case], store)[0]

    first, read_back = prepare(), (read(), read())[1]
    assert all(torch.equal(first[key], read_back[key]) for key in first), "the store holds something else"
    times = measure.alternate(pairs, prepare, read)
    return {
        "part": "reading",
        "prepare_seconds": measure.Spread.of(times.first).as_dict(),
        "store_seconds": measure.Spread.of(times.second).as_dict(),
        "ratio": times.ratio().as_dict(),
        "voxels": list(read_back["label"].shape[1:]),
        "file_bytes": sum(file.stat().st_size for file in case.files),
        "store_bytes": sum(file.stat().st_size for file in store.glob("*.pt")),
    }


def keys(case: Case, folder: Path, crop: int) -> dict[str, bool]:
    """Returns, by what has changed, whether a case is prepared again. Changes files, so it needs a copy of the case.

    Args:
        case: whose files may be changed.
        folder: for the store.
        crop: side of the training crops.
    """

    def entries() -> int:
        return len(list(folder.glob("*.pt")))

    def made_again(of: Case, job: Settings) -> bool:
        before = entries()
        for _ in TrainingBatches([of], job, (), folder).epoch(0):
            pass
        return entries() > before

    job, file = settings(crop), case.images[case.modalities[0]]
    found = {"nothing was there": made_again(case, job)}
    found["nothing"] = made_again(case, job)
    changes = {"seed": 1, "training": {"crop": crop - 8}, "augmentation": {"rotation_degrees": 0, "tumour_share": 1}}
    found["settings of the job: crop, augmentation, seed"] = made_again(case, make_settings("paper", changes))
    fewer = replace(case, images={name: case.images[name] for name in case.modalities[1:]})
    found["modalities"] = made_again(fewer, job)
    content, stat = file.read_bytes(), file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    found["time of a file, same content"] = made_again(case, job)
    image = nib.load(file)
    nib.save(nib.Nifti1Image(2 * np.asarray(image.dataobj), image.affine), file)
    found["content of a file"] = made_again(case, job)
    return found


class Inline(Executor):
    """Does the work when its result is asked for: so each batch of the straightforward epoch is loaded."""

    def submit(self, work: Callable[..., Any], *arguments: Any) -> SimpleNamespace:
        return SimpleNamespace(result=partial(work, *arguments))


@dataclass(frozen=True)
class Epoch:
    """Seconds that an epoch took, and that each of its steps waited for its batch."""

    seconds: float
    waits: list[float]


def run_epoch(batches: Iterable[Any], step: Callable[[Any], Any]) -> Epoch:
    """Does a step with every batch."""
    waits = []
    started = asked = perf_counter()
    for batch in batches:
        waits.append(perf_counter() - asked)
        step(batch)
        asked = perf_counter()
    return Epoch(perf_counter() - started, waits)


def stand_in(seconds: float) -> Callable[[Any], None]:
    """Returns a step without a network: work on all cores that takes about so long when nothing else runs."""
    convolution, images = torch.nn.Conv3d(16, 16, 3, padding=1), torch.randn(1, 16, 48, 48, 48)

    @torch.inference_mode()
    def work(times: int = 1) -> None:
        for _ in range(times):
            convolution(images)

    work()
    once = median(measure.seconds(partial(work, 20)) for _ in range(5)) / 20
    times = max(1, round(seconds / once))
    return lambda _: work(times)


def waiting(cases: Sequence[Case], folder: Path, crop: int, step: Callable[[Any], Any], pairs: int) -> dict[str, Any]:
    """Measures what the steps of epochs wait for their batches; returns a row of the report.

    Args:
        cases: to train on.
        folder: for the store of prepared cases; the first epoch fills it if they are not there.
        crop: side of the training crops.
        step: called with every batch.
        pairs: measured epochs of each way, by turns.
    """
    job = settings(crop)
    batches = TrainingBatches(cases, job, ("site",), folder)
    inside = TrainingBatches(cases, job, ("site",), folder, Inline)
    first = run_epoch(batches.epoch(0), step)
    kept = list(batches.epoch(0))
    for ours, plain in zip(kept, inside.epoch(0), strict=True):
        assert torch.equal(ours.images, plain.images) and torch.equal(ours.label, plain.label), "the batches differ"
    ways: dict[str, Callable[[int], Iterable[Any]]] = {
        "product": batches.epoch,
        "straightforward": inside.epoch,
        "steps_alone": lambda number: kept,
    }
    epochs: dict[str, list[Epoch]] = {name: [] for name in ways}
    for pair in range(pairs):
        for name in ways if pair % 2 == 0 else reversed(ways):
            epochs[name].append(run_epoch(ways[name](pair + 1), step))
    summaries = {name: _summary(found) for name, found in epochs.items()}
    return {"part": "waiting", "first_epoch_waits": first.waits, **summaries}


def _summary(epochs: list[Epoch]) -> dict[str, Any]:
    return {
        "epoch_seconds": measure.Spread.of([epoch.seconds for epoch in epochs]).as_dict(),
        "first_wait": measure.Spread.of([epoch.waits[0] for epoch in epochs]).as_dict(),
        "later_wait": measure.Spread.of([wait for epoch in epochs for wait in epoch.waits[1:]]).as_dict(),
        "waiting_share": sum(sum(epoch.waits) for epoch in epochs) / sum(epoch.seconds for epoch in epochs),
    }


def prepare_epochs(folder: Path, trains: bool, epochs: int, threads: int) -> Callable[[], list[float]]:
    """For a process of its own: epochs over small cases; the work returns the memory held after each, in MiB."""
    use_threads(threads)
    data, job = phantom_data(folder, FUSION_SITE, CASES), settings(crop=24, batch=2, width=4)
    batches = TrainingBatches(data.train, job, (data.name,), data.cache)
    network = FedMEPDNet(BRATS, width=job.network.width)
    optimizer = make_optimizer(network, job.training)

    def epoch(number: int) -> float:
        if trains:
            precision = job.training.training_precision()
            train_epoch(
                network, optimizer, batches.epoch(number), EpochReport(), precision=precision, abort=lambda: False
            )
        else:
            for _ in batches.epoch(number):
                pass
        return measure.memory_mib()

    return lambda: [epoch(number) for number in range(epochs)]


def memory(folder: Path, trains: bool, epochs: int, threads: int) -> dict[str, Any]:
    """Measures how memory grows; returns a row of the report."""
    held = measure.in_fresh_process(prepare_epochs, folder, trains, epochs, threads).result
    settled = held[min(WARMUP, epochs // 2) :]
    slope = linear_regression(range(len(settled)), settled).slope
    return {"part": "memory", "what": "loading and training" if trains else "loading", "mib": held, "slope": slope}


@measure.command
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables and writes the report."""
    parser = measure.arguments("Reading a case, waiting for batches, and memory over many epochs.", pairs=3)
    parser.add_argument("--case", type=Path, help="folder of a case to read; default: a phantom of real size")
    options = parser.parse_args(arguments)
    use_threads(options.threads)
    crop, cases, steps, epochs = (24, 2, (0.05,), 6) if options.quick else (80, CASES, STEPS, EPOCHS)
    brain, volume = ((30, 34, 30), (48, 48, 40)) if options.quick else (BRAIN, VOLUME)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = _copy(options.case, folder / "copy", parser.error) if options.case else None
        phantoms = real_sized_cases(folder / "cases", cases, brain, volume)
        case = given or phantoms[0]
        read = reading(case, folder / "read", options.pairs)
        waited = [
            waiting(phantoms, folder / f"{seconds} s", crop, stand_in(seconds), options.pairs)
            | {"step_seconds": seconds}
            for seconds in steps
        ]
        held = [memory(folder / f"memory-{trains}", trains, epochs, options.threads) for trains in (False, True)]
        # Last, since it changes the case's files.
        again = keys(case, folder / "keys", crop)
    environment = measure.environment()
    print(measure.describe(environment))
    _show_reading(read, again, "the given case" if given else "a phantom")
    _show_waiting(waited, crop)
    _show_memory(held)
    path = measure.write_report("data", options.json, environment, [read, *waited, *held], prepared_again=again)
    print(f"\nwritten to {path}")


def _copy(given: Path, folder: Path, fail: Callable[[str], Any]) -> Case:
    if given.is_dir():
        shutil.copytree(given, folder / given.resolve().name)
        for case in inspect_cases(find_dataset(BRATS, folder).cases).cases:
            if len(case.images) > 1 and case.label is not None:
                return case
    return fail(f"--case {given}: expected a folder with at least two images and a label, as NIfTI files")


def _show_reading(row: dict[str, Any], again: dict[str, bool], what: str) -> None:
    megabytes = {key: f"{row[key] / 1e6:.1f} MB" for key in ("file_bytes", "store_bytes")}
    print(f"\nReading {what}; {' x '.join(map(str, row['voxels']))} voxels are left around the brain")
    rows = [
        ["read the files, crop, normalise, store", _spread(row["prepare_seconds"], 2), megabytes["file_bytes"]],
        ["read from the store", _spread(row["store_seconds"], 3), megabytes["store_bytes"]],
    ]
    print(measure.table(["work", "seconds", "on disk"], rows))
    print(f"From the store {_spread(row['ratio'], 0)} times faster\n")
    rows = [[change, "prepared again" if made else "from the store"] for change, made in again.items()]
    print(measure.table(["what has changed", "the case is"], rows))


def _show_waiting(rows: list[dict[str, Any]], crop: int) -> None:
    print(f"\nWaiting for batches, crop {crop}; milliseconds")
    lines = []
    for row in rows:
        first, *later = (f"{1000 * wait:.0f}" for wait in row["first_epoch_waits"])
        lines.append([f"{row['step_seconds']} s", "files read for the first time", first, ", ".join(later), "", ""])
        for name in ("product", "straightforward"):
            found = row[name]
            waits = [_spread(found[key], 1, 1000) for key in ("first_wait", "later_wait")]
            lines.append(["", name, *waits, f"{found['waiting_share']:.2%}", _spread(found["epoch_seconds"], 2)])
        lines.append(["", "steps alone", "", "", "", _spread(row["steps_alone"]["epoch_seconds"], 2)])
    print(measure.table(["step", "epoch", "first batch", "later batches", "share of the time", "epoch, s"], lines))


def _show_memory(rows: list[dict[str, Any]]) -> None:
    print(f"\nMemory after each of {len(rows[0]['mib'])} epochs over {CASES} small cases, MiB")
    lines = []
    for row in rows:
        verdict = "too few epochs" if len(row["mib"]) < EPOCHS else "no growth" if row["slope"] <= BOUND else "GROWS"
        ends = (f"{row['mib'][place]:.0f}" for place in (0, len(row["mib"]) // 2, -1))
        lines.append([row["what"], *ends, f"{row['slope']:+.3f}", verdict])
    print(measure.table(["epochs of", "first", "middle", "last", "growth an epoch", f"bound {BOUND}"], lines))


def _spread(values: dict[str, float], digits: int, factor: float = 1) -> str:
    return measure.Spread(**{key: factor * value for key, value in values.items()}).text(digits)


if __name__ == "__main__":
    sys.exit(main())
