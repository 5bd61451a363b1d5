"""The parts of :mod:`benchmarks.gpu`: what each measures, and how long it needs at least."""

from __future__ import annotations

import argparse
import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.agreement import check, with_processor
from benchmarks.budget import Part
from benchmarks.measure import MIB, Spread
from benchmarks.memory import LOSS_TOLERANCE
from benchmarks.task import Task
from benchmarks.ways import STRAIGHTFORWARD, Way
from fedmepd.data.batches import Batch

# Steps before the measured ones.
_WARMUP = 3
# Seconds that a part is begun with, guesses for a data centre's card: too high leaves out what would have fitted.
_SECONDS = {"agreement": 5, "step": 4, "larger step": 8, "compiled step": 45, "loading": 40, "segmenting": 15}
# Of the model that segments.
_TRAINING_STEPS = 30
# Cases on disk, and how often an epoch goes through them: an epoch of few steps would be its first wait alone.
_CASES, _TIMES = 2, 8


class _Measured:
    """What the parts have in common.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace):
        self.options = options

    def seconds_for(self, what: str) -> float:
        """What a part needs; nothing where the sizes are tiny."""
        return 0 if self.options.quick else _SECONDS[what]


class Agreements(_Measured):
    """One step on the GPU against one on the processor."""

    def part(self, modalities: tuple[str, ...], arithmetic: str) -> Part:
        """In ``arithmetic``, on a crop that float64 can afford."""
        options = self.options
        task = Task(modalities, options.width, options.crop, device=options.device)

        def run() -> dict[str, Any]:
            found = with_processor(task, arithmetic)
            check(found, arithmetic, slack=10.0 if options.quick else 1.0)
            return asdict(found)

        about = {"part": "agreement", "arithmetic": arithmetic, "modalities": list(modalities)}
        return Part(about, self.seconds_for("agreement"), run)


class Steps(_Measured):
    """Training steps in several ways, compared with the straightforward formulation."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        self._plain: dict[tuple, dict[str, Any]] = {}

    def part(self, way: Way, modalities: tuple[str, ...], crop: int, precision: str) -> Part:
        """One way, with crops of a size, in a precision."""
        options = self.options
        about = {"part": "step", "way": way.name, "modalities": list(modalities), "crop": crop, "precision": precision}
        kind = "compiled step" if way.compiled else "step" if crop == options.crop else "larger step"

        def run() -> dict[str, Any]:
            task = Task(modalities, options.width, crop, precision=precision, device=options.device)
            found = measure_step(way, task, _batch(modalities, options.width, crop), options.steps)
            if way == STRAIGHTFORWARD:
                self._plain[modalities, crop, precision] = found
            plain, in_float32 = (self._plain.get((modalities, crop, kind)) for kind in (precision, "float32"))
            if plain is not None and not abs(found["loss"] / plain["loss"] - 1) <= LOSS_TOLERANCE:
                raise RuntimeError(f"first loss {found['loss']:.4f}, straightforward {plain['loss']:.4f}")
            return found | ratios(found, plain, in_float32)

        return Part(about, self.seconds_for(kind), run)


@cache
def _batch(modalities: tuple[str, ...], width: int, crop: int) -> Batch:
    [batch] = Task(modalities, width, crop).batches(1)
    return batch


def measure_step(way: Way, task: Task, batch: Batch, steps: int) -> dict[str, Any]:
    """Measures training steps on one batch.

    Args:
        way: of doing them.
        task: the site.
        batch: to train on.
        steps: to measure, after some to warm up.

    Returns:
        ``seconds``, ``peak_mib`` (None on the processor), ``loss`` of the first step; ``graph_breaks`` if compiled.

    Raises:
        RuntimeError: the first loss is not finite.
    """
    _free(task.device)
    if way.compiled:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
    with way.surroundings():
        trainer = way.trainer(task)
        loss = trainer.step(batch)
        if not math.isfinite(loss):
            raise RuntimeError(f"the first loss is {loss}")
        for _ in range(_WARMUP - 1):
            trainer.step(batch)
        times = [device_seconds(task.device, lambda: trainer.step(batch)) for _ in range(steps)]
    found = {"seconds": Spread.of(times).as_dict(), "peak_mib": _peak_mib(task.device), "loss": loss}
    if way.compiled:
        found["graph_breaks"] = sum(torch._dynamo.utils.counters["graph_break"].values())
    return found


class Loading(_Measured):
    """Whether the GPU waits for batches.

    Args:
        folder: for the cases' files.
    """

    def __init__(self, options: argparse.Namespace, folder: Path):
        super().__init__(options)
        self._folder = folder

    def part(self, modalities: tuple[str, ...]) -> Part:
        """Epochs of the product over cases of real size, rotated and all, by turns with other ways of loading."""
        return Part(
            {"part": "loading", "modalities": list(modalities), "crop": self.options.crop, "precision": "bfloat16"},
            self.seconds_for("loading"),
            lambda: self._run(modalities),
        )

    def _run(self, modalities: tuple[str, ...]) -> dict[str, Any]:
        from benchmarks.data import waiting
        from benchmarks.heads import BRAIN, VOLUME
        from benchmarks.phantoms import real_sized_cases

        options = self.options
        brain, volume = ((30, 34, 30), (48, 48, 40)) if options.quick else (BRAIN, VOLUME)
        cases = [
            replace(case, images={name: case.images[name] for name in modalities})
            for case in real_sized_cases(self._folder / "cases", _CASES, brain, volume)
        ]
        trainer = Task(modalities, options.width, options.crop, precision="bfloat16", device=options.device).product()
        times = 1 if options.quick else _TIMES
        return waiting(cases * times, self._folder / "store", options.crop, trainer.step, 1 if options.quick else 2)


class Segmenting(_Measured):
    """A whole case by sliding windows.

    Args:
        folder: for the model and the case.
    """

    def __init__(self, options: argparse.Namespace, folder: Path):
        super().__init__(options)
        self._crop = 16 if options.quick else options.crop
        self._model, self._case = folder / "model.pt", folder / "case.pt"
        self._plain: dict[str, Any] | None = None
        self._classes: torch.Tensor | None = None

    def parts(self, modalities: tuple[str, ...], precisions: Sequence[str]) -> list[Part]:
        """The straightforward formulation in float32, the product, and the product on the box around the brain."""
        sides = [("straightforward", "float32")]
        sides += [(side, precision) for precision in reversed(precisions) for side in ("product", "cropped")]
        return [
            Part(
                {"part": "segmenting", "side": side, "modalities": list(modalities), "precision": precision},
                self.seconds_for("segmenting"),
                lambda side=side, precision=precision: self._run(side, modalities, precision),
            )
            for side, precision in sides
        ]

    def _run(self, side: str, modalities: tuple[str, ...], precision: str) -> dict[str, Any]:
        from benchmarks import inference
        from fedmepd.storage import load_tensors, save_tensors
        from fedmepd.tasks.brats import BRATS

        options = self.options
        if not self._model.exists():
            steps = 2 if options.quick else _TRAINING_STEPS
            inference.train(self._model, argparse.Namespace(**vars(options) | {"crop": self._crop, "steps": steps}))
        if not self._case.exists():
            save_tensors(self._case, inference.phantom_case(self._crop))
        _free(options.device)
        work = inference.prepare(
            side, self._model, self._case, modalities, self._crop, options.threads, precision, options.device
        )
        classes = torch.from_numpy(work())
        times = [device_seconds(options.device, work) for _ in range(1 if options.quick else 2)]
        found = {"seconds": Spread.of(times).as_dict(), "peak_mib": _peak_mib(options.device)}
        if side == "straightforward":
            self._plain, self._classes = found, classes
        found |= ratios(found, self._plain, self._plain)
        if self._classes is not None:
            brain = (load_tensors(self._case)["images"] != 0).any(dim=0)
            scores = inference.dice(self._classes[brain], classes[brain])
            found["lowest_dice"] = min(scores[region] for region in BRATS.regions)
        return found


def device_seconds(device: str, work: Callable[[], Any]) -> float:
    """Returns how long ``work`` takes, until the device has done all of it."""
    if torch.device(device).type != "cuda":
        return measure.seconds(work)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000


def _free(device: str) -> None:
    """Gives back what earlier parts held, so that the peak is the next part's own."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak_mib(device: str) -> float | None:
    return torch.cuda.max_memory_allocated(device) / MIB if torch.device(device).type == "cuda" else None


def ratios(
    found: dict[str, Any], plain: dict[str, Any] | None, in_float32: dict[str, Any] | None
) -> dict[str, float | None]:
    """How many times as long and as much the straightforward formulation takes, as far as it was measured."""

    def ratio(other: dict[str, Any] | None) -> float | None:
        return None if other is None else other["seconds"]["median"] / found["seconds"]["median"]

    memory = None
    if plain is not None and found["peak_mib"]:
        memory = plain["peak_mib"] / found["peak_mib"]
    return {"ratio": ratio(plain), "ratio_float32": ratio(in_float32), "ratio_memory": memory}
