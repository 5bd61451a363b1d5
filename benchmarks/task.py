"""What both sides of a speed benchmark work on: the same site, weights and batches."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.heads import batch, brain_for, head
from benchmarks.straightforward import Straightforward
from fedmepd.config import Settings
from fedmepd.data.batches import Batch
from fedmepd.errors import FedMEPDError
from fedmepd.job_settings import make_settings
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS, PROTOCOL_SUBSETS
from fedmepd.training.arithmetic import autocast
from fedmepd.training.epoch import EpochReport, Step, make_optimizer, train_epoch
from tests.networks import oracle, ours


@dataclass(frozen=True)
class Task:
    """A site that trains, with the settings of a preset unless something else is said.

    Args:
        modalities: of the site.
        width: channels at full resolution.
        crop: side of the crops in voxels.
        batch: crops in a batch.
        precision: of the product: ``auto``, ``float32`` or ``bfloat16``.
        dtype: of weights and images on both sides.
        device: to train on.
        preset: of the remaining settings.
        dropout: of the calibration; None for the preset's.
        calibrating: start the calibration's weights as large as those of other layers. They start at 0.001, which lets
            next to nothing through where calibration replaces the feature.
        seed: of weights, anchors and batches.
        heads: phantom heads that the crops are taken from.
    """

    modalities: tuple[str, ...]
    width: int
    crop: int
    batch: int = 1
    precision: str = "auto"
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    preset: str = "paper"
    dropout: float | None = None
    calibrating: bool = True
    seed: int = 0
    heads: int = 1

    @property
    def settings(self) -> Settings:
        """The job's settings."""
        changes = {
            "seed": self.seed,
            "network": {"width": self.width},
            "training": {"crop": self.crop, "batch": self.batch, "precision": self.precision},
            "calibration": {} if self.dropout is None else {"dropout": self.dropout},
        }
        return make_settings(self.preset, changes)

    def weights(self) -> dict[str, Tensor]:
        """The weights of all modalities' network as the product starts them, in the published layout."""
        weights = ours.published(FedMEPDNet(BRATS, width=self.width, calibration={}).start(self.seed))
        if self.calibrating:
            lively = oracle.random_state(self.width, self.seed)
            weights |= {name: value for name, value in lively.items() if "_attn." in name}
        return {name: value.to(self.dtype) for name, value in weights.items()}

    def anchors(self) -> dict[int, Tensor]:
        """As many anchors as the settings ask for, by level."""
        rows = self.settings.calibration.anchors_per_class * len(BRATS.classes)
        anchors = oracle.random_anchors(self.width, self.seed, rows)
        return {level: of_level.to(self.dtype) for level, of_level in anchors.items()}

    def batches(self, count: int) -> Iterator[Batch]:
        """Crops of phantom heads."""
        heads = [head(number, brain_for(self.crop)) for number in range(self.heads)]
        for step in range(count):
            made = batch(heads, self.modalities, self.crop, self.batch, seed=self.seed * 1_000_003 + step)
            yield Batch(made.images.to(self.dtype), made.modalities, made.label, made.cases)

    def straightforward(self, forward: Callable[..., oracle.Outputs] = oracle.forward) -> Straightforward:
        """The site, trained by the straightforward formulation, with ``forward`` as its network."""
        settings = self.settings
        return Straightforward(
            self.weights(),
            self.modalities,
            self.anchors(),
            settings.calibration.residual,
            settings.training,
            torch.device(self.device),
            forward,
        )

    def product(self) -> Product:
        """The site, trained by the product."""
        return Product(self)

    def arithmetic(self) -> str:
        """What the product's precision means here: ``float64``, ``float32`` or ``bfloat16``."""
        if self.dtype != torch.float32:
            return str(self.dtype).removeprefix("torch.")
        with autocast(torch.device(self.device), self.settings.training.training_precision()):
            return "bfloat16" if torch.is_autocast_enabled(torch.device(self.device).type) else "float32"


class Product:
    """A site's training by the product, with the interface of :class:`Straightforward`.

    Args:
        task: the site.
    """

    def __init__(self, task: Task):
        settings = task.settings
        calibration = settings.calibration
        self.precision = settings.training.training_precision()
        self.network = ours.network(
            task.weights(), task.anchors(), task.modalities, calibration.residual, calibration.dropout
        ).to(task.device)
        self.optimizer = make_optimizer(self.network, settings.training)
        self.segmentation: Tensor | None = None

    def step(self, batch: Batch, keep: bool = False) -> float:
        """Trains one step; returns its loss.

        Args:
            batch: of the site's modalities.
            keep: keep the class probabilities in ``segmentation``.
        """
        report = EpochReport()
        train_epoch(
            self.network,
            self.optimizer,
            [batch],
            report,
            precision=self.precision,
            abort=lambda: False,
            observe=self._keep if keep else lambda step: None,
        )
        return report.means()["total"]

    def _keep(self, step: Step) -> None:
        self.segmentation = step.outputs.segmentation.detach()

    def gradients(self) -> dict[str, Tensor]:
        """Returns the last step's gradients by name."""
        return {name: weight.grad for name, weight in self.network.named_parameters()}


def add_task_arguments(parser: argparse.ArgumentParser, width: int, crop: int) -> None:
    """Adds the options that decide a task's size and place, with these defaults."""
    parser.add_argument("--width", type=int, default=width, help=f"channels at full resolution; default: {width}")
    parser.add_argument("--crop", type=int, default=crop, help=f"side of the crops in voxels; default: {crop}")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: cpu")
    parser.add_argument(
        "--subset",
        type=_subset,
        action="append",
        dest="subsets",
        metavar="NAMES",
        help="modalities such as FLAIR,T1ce; may be repeated; default: the eight sites of the protocol",
    )


def add_precision_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the option that chooses the product's arithmetic."""
    parser.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of the product; default: auto"
    )


def sites(options: argparse.Namespace) -> list[tuple[str, ...]]:
    """Returns the modalities of every site to measure, equal ones repeated."""
    return options.subsets or list(PROTOCOL_SUBSETS)


def synchronise(device: str) -> None:
    """Waits until a GPU has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _subset(text: str) -> tuple[str, ...]:
    try:
        return BRATS.subset(text.split(","))
    except FedMEPDError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
