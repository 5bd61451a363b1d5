"""The whole network of a site or of the fusion site."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmepd.errors import FedMEPDError
from fedmepd.networks.auxiliary import AuxiliaryDecoder
from fedmepd.networks.blocks import full_precision, give_affine_parameters, join, start_weights
from fedmepd.networks.calibration import Calibration
from fedmepd.networks.decoder import FusionDecoder
from fedmepd.networks.encoder import LEVELS, Encoder, EncoderNorms, channels
from fedmepd.networks.kernels.upsampling import upsample_maps
from fedmepd.tasks.task import Task

SHARED = "shared"


@dataclass
class Outputs:
    """What a training pass returns.

    Attributes:
        segmentation: class probabilities (B, classes, X, Y, Z).
        regions: region probabilities by level, at the level's resolution.
        features: level features before calibration, by level.
        auxiliary: class probabilities of each modality alone, (M, B, classes, X, Y, Z).
        encoded: the encoders' features, for each level from 1 to 4 those of the modalities, each (B, C_l, ...).
    """

    segmentation: Tensor
    regions: dict[int, Tensor]
    features: dict[int, Tensor]
    auxiliary: Tensor
    encoded: list[list[Tensor]] = field(default_factory=list)

    def tensors(self) -> list[Tensor]:
        """All of them in a fixed order, each with the samples along its first axis."""
        encoded = [feature for level in self.encoded for feature in level]
        auxiliary = self.auxiliary.movedim(1, 0)
        return [self.segmentation, auxiliary, *self.regions.values(), *self.features.values(), *encoded]

    def with_tensors(self, tensors: Iterable[Tensor]) -> Outputs:
        """Returns outputs of the same levels and modalities with other tensors, in the order of :meth:`tensors`."""
        each = iter(tensors)
        segmentation, auxiliary = next(each), next(each).movedim(0, 1)
        regions, features = ({level: next(each) for level in levels} for levels in (self.regions, self.features))
        return Outputs(
            segmentation, regions, features, auxiliary, [[next(each) for _ in level] for level in self.encoded]
        )

    def full_size_regions(self) -> dict[int, Tensor]:
        """The region maps upsampled to full size, each in one step (deep supervision), in full precision."""
        return {
            level: upsample_maps(full_precision(region), 2 ** (level - 1)) for level, region in self.regions.items()
        }


class FedMEPDNet(nn.Module):
    """Modality encoders, fusion decoder, auxiliary decoder and calibration (algorithm section 2).

    Args:
        task: decides the number of classes, and the order in which modalities are stacked.
        modalities: the modalities that have an encoder here; None: all of the task.
        width: channels at full resolution.
        calibration: settings of LACCA as keyword arguments of :class:`Calibration` (``residual``, ``dropout``), or None
            for a network without it, as the fusion site has.
        shared_encoder: one encoder for all modalities.
        affine: whether normalisations have a scale and a shift; RFNet's have not.
        modality_norms: whether the shared encoder has one set of them for each modality (FedNorm+).

    Attributes:
        anchors: by level, (rows, C_l); calibration starts with the first round that has them.
    """

    def __init__(
        self,
        task: Task,
        modalities: Iterable[str] | None = None,
        width: int = 16,
        *,
        calibration: dict | None = None,
        shared_encoder: bool = False,
        affine: bool = False,
        modality_norms: bool = False,
    ):
        super().__init__()
        self.task = task
        self.modalities = task.modalities if modalities is None else task.subset(modalities)
        self.width = width
        self.shared_encoder = shared_encoder
        self.affine = affine
        self.modality_norms = modality_norms
        count, classes = len(task.modalities), len(task.classes)
        names = (SHARED,) if shared_encoder else self.modalities
        self.encoders = nn.ModuleDict({name: Encoder(width) for name in names})
        self.decoder = FusionDecoder(count, classes, width)
        self.auxiliary = AuxiliaryDecoder(width, classes)
        if affine:
            for part in (self.decoder, self.auxiliary) if modality_norms else (self,):
                give_affine_parameters(part)
        if modality_norms:
            self.encoders.update({name: EncoderNorms(width) for name in self.modalities})
        self.calibration = None
        if calibration is not None:
            # The paper halves the heads at full resolution, where memory is scarcest.
            self.calibration = nn.ModuleDict(
                {
                    str(level): Calibration(channels(width, level), 4 if level == 1 else 8, **calibration)
                    for level in LEVELS
                }
            )
        self.anchors: dict[int, Tensor] = {}
        self.to(memory_format=torch.channels_last_3d)

    def start(self, seed: int) -> FedMEPDNet:
        """Initialises every part from its own seed, so that its weights do not depend on the site's other parts."""
        from fedmepd.seeds import derive_seed

        parts = {f"encoder/{name}": encoder for name, encoder in self.encoders.items()}
        parts |= {"decoder": self.decoder, "auxiliary": self.auxiliary}
        for name, part in parts.items():
            start_weights(part, torch.Generator().manual_seed(derive_seed(seed, "start", name)))
        for level, lacca in (self.calibration or {}).items():
            lacca.start_weights(torch.Generator().manual_seed(derive_seed(seed, "start", "calibration", level)))
        return self

    def encode(self, images: Tensor, modalities: Sequence[str]) -> list[list[Tensor]]:
        """images (B, M, X, Y, Z) -> for each level from 1 to 4 the modalities' features, each (B, C_l, ...)."""
        by_modality = []
        for index, name in enumerate(modalities):
            encoder = self.encoders[SHARED if self.shared_encoder else name]
            norms = self.encoders[name] if self.modality_norms else None
            by_modality.append(encoder(images[:, index : index + 1], norms))
        return [list(level) for level in zip(*by_modality, strict=True)]

    def _calibrate(self, level: int, feature: Tensor) -> Tensor:
        return self.calibration[str(level)](feature, self.anchors[level].to(feature.device))

    def run(self, images: Tensor, modalities: Sequence[str]) -> tuple[Tensor, dict, dict, list[list[Tensor]]]:
        """Segments images whose sides are multiples of 8; modalities in the task's order.

        Returns:
            class probabilities, region probabilities by level, level features by level, encoder features.
        """
        encoded = self.encode(images, modalities)
        present = [self.task.modalities.index(name) for name in modalities]
        calibrate = self._calibrate if self.calibration is not None and self.anchors else None
        return (*self.decoder([join(*level) for level in encoded], present, calibrate), encoded)

    def training_outputs(self, images: Tensor, modalities: Sequence[str]) -> Outputs:
        """images (B, M, X, Y, Z), sides multiples of 8, modalities in the task's order -> everything the loss needs."""
        segmentation, regions, features, encoded = self.run(images, modalities)
        # The modalities go through the auxiliary decoder as one batch; instance normalisation keeps them apart.
        auxiliary = self.auxiliary([torch.cat(level, dim=0) for level in encoded])
        return Outputs(segmentation, regions, features, auxiliary.unflatten(0, (len(modalities), -1)), encoded)

    def forward(self, images: Tensor, modalities: Sequence[str]) -> Tensor:
        """Class probabilities of preprocessed images.

        Args:
            images: (B, M, X, Y, Z), z-scored inside the brain and 0 outside; any size.
            modalities: M names in the order of the images' channels; any non-empty subset of the network's modalities.

        Returns:
            (B, classes, X, Y, Z).

        Raises:
            FedMEPDError: a modality is unknown, given twice, has no encoder here, or the shape does not fit.
        """
        modalities = (modalities,) if isinstance(modalities, str) else tuple(modalities)
        order = self._check(images, modalities)
        size = images.shape[2:]
        padding = [pad for side in reversed(size) for pad in (0, max(16, -(-side // 8) * 8) - side)]
        padded = F.pad(images[:, order], padding) if any(padding) else images[:, order]
        segmentation = self.run(padded, [modalities[index] for index in order])[0]
        return segmentation[:, :, : size[0], : size[1], : size[2]]

    def _check(self, images: Tensor, modalities: tuple[str, ...]) -> list[int]:
        subset = self.task.subset(modalities)
        if len(subset) != len(modalities):
            raise FedMEPDError(f"modalities {', '.join(modalities)}: each may be given once")
        missing = [name for name in subset if name not in self.modalities]
        if missing:
            raise FedMEPDError(
                f"this model has no encoder for {', '.join(missing)}: it was trained with {', '.join(self.modalities)}"
            )
        if images.ndim != 5 or images.shape[1] != len(modalities):
            raise FedMEPDError(
                f"images of shape {tuple(images.shape)}: expected (B, {len(modalities)}, X, Y, Z), with the channels "
                f"{', '.join(modalities)}"
            )
        return [modalities.index(name) for name in subset]
