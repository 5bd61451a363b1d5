"""The method written down as its formulas are, to compare the product with: the naive oracle of the tests.

All four encoders run, whichever modalities are there; regions and modalities form one dense tensor; everything is
float32, in PyTorch's ordinary memory format. Blocks are PyTorch's own instance normalisation and leaky ReLU, in place.
The oracle has no dropout, which is in its favour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedmepd.config import TrainingSettings
from fedmepd.data.batches import Batch
from tests.networks import oracle, ours


class Straightforward:
    """A site's training.

    Args:
        weights: of all four modalities' network, in the published layout.
        modalities: of the site.
        anchors: by level (rows, C_l).
        residual: whether calibration adds to the feature.
        settings: of the optimizer.
        device: to train on.
        forward: the network; another one computes the same in another way, such as compiled.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        modalities: Sequence[str],
        anchors: dict[int, Tensor],
        residual: bool,
        settings: TrainingSettings,
        device: torch.device,
        forward: Callable[..., oracle.Outputs] = oracle.forward,
    ):
        self.weights = {name: value.detach().to(device).clone().requires_grad_() for name, value in weights.items()}
        self.mask = [name in modalities for name in oracle.MODALITIES]
        self.anchors = {level: rows.to(device) for level, rows in anchors.items()}
        self.residual = residual
        self.device = device
        self.forward = forward
        self.segmentation: Tensor | None = None
        self.optimizer = torch.optim.Adam(
            self.weights.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )

    def step(self, batch: Batch, keep: bool = False) -> float:
        """Trains one step; returns its loss.

        Args:
            batch: of the site's modalities.
            keep: keep the class probabilities in ``segmentation``.
        """
        images = all_channels(batch.images.to(self.device), self.mask)
        outputs = self.forward(self.weights, images, self.mask, self.anchors, self.residual)
        loss, _ = oracle.training_loss(outputs, batch.label.to(self.device))
        if keep:
            self.segmentation = outputs.segmentation.detach()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def gradients(self) -> dict[str, Tensor]:
        """Returns the last step's gradients, by the product's names of the weights."""
        found = {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in self.weights.items()}
        return ours.translate(found, self.anchors)


def all_channels(images: Tensor, mask: Sequence[bool]) -> Tensor:
    """Puts images (B, M, X, Y, Z) of the modalities in ``mask`` among those of all modalities, the others zero."""
    channels = [place for place, there in enumerate(mask) if there]
    every = torch.zeros(len(images), len(mask), *images.shape[2:], dtype=images.dtype, device=images.device)
    every[:, channels] = images
    return every


@torch.inference_mode()
def predict(
    weights: dict[str, Tensor],
    images: Tensor,
    modalities: Sequence[str],
    anchors: dict[int, Tensor],
    residual: bool,
    window: int,
    overlap: float,
) -> Tensor:
    """The most probable class of each voxel: every window, all encoders, no auxiliary decoder.

    Args:
        weights: of all four modalities' network, in the published layout.
        images: preprocessed images of one case, (1, M, X, Y, Z), no side smaller than the window.
        modalities: the images' M modalities.
        anchors: by level (rows, C_l).
        residual: whether calibration adds to the feature.
        window, overlap: side of the window in voxels, share that the next one covers again.

    Returns:
        class numbers (X, Y, Z), int64.
    """
    from monai.inferers import sliding_window_inference

    mask = [name in modalities for name in oracle.MODALITIES]

    def probabilities(crops: Tensor) -> Tensor:
        return oracle.forward(weights, crops, mask, anchors, residual, training=False).segmentation

    stitched = sliding_window_inference(all_channels(images, mask), window, 1, probabilities, overlap=overlap)
    return stitched.argmax(dim=1)[0]
