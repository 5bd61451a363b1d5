"""Methods that exchange encoders alone: plain means over their owners, then the fusion site trains the average."""

from __future__ import annotations

from collections.abc import Sequence

from fedmepd.config import Settings
from fedmepd.methods.method import AtServer, Fuse, Fused, Shapes, Store, Tensors
from fedmepd.methods.parts.aggregation import aggregation
from fedmepd.methods.parts.selection import ENCODERS, SEGMENTING, of_modalities, parts


class EncodersAtServer(AtServer):
    """Sends every site the encoders of its modalities, averages them, and has the fusion site train all that segments.

    The decoder of the global model is the fusion site's and does not travel to the sites.
    """

    def __init__(self, settings: Settings, weights: Tensors, store: Store):
        super().__init__(settings, parts(weights, SEGMENTING), store)
        self._modalities: dict[str, Sequence[str]] = {}

    def join(self, site: str, modalities: Sequence[str]) -> None:
        self._modalities[site] = modalities

    def send(self, site: str) -> Tensors:
        return self._encoders(site) | self.anchors

    def _encoders(self, site: str) -> Tensors:
        return parts(of_modalities(self.weights, self._modalities[site]), (ENCODERS,))

    def expect(self, site: str) -> Shapes:
        return {key: value.shape for key, value in self._encoders(site).items()}

    def open(self, round_number: int) -> None:
        keys = list(parts(self.weights, (ENCODERS,)))
        self._sums = aggregation(self.settings.aggregation, self.weights, keys, 0.0, self.store)

    def take(self, site: str, changes: Tensors, cases: int) -> None:
        for key, change in changes.items():
            self._sums.add(site, key, change, self.weight(site, cases))

    def weight(self, site: str, cases: int) -> float:
        """Returns a site's weight in the means of its encoders."""
        return 1.0

    def begin(self, fuse: Fuse) -> Fused:
        fused = super().begin(fuse)
        self.anchors = fused.extras
        return fused

    def close(self, fuse: Fuse, round_number: int) -> Fused | None:
        self.weights = self._sums.result()
        fused = fuse(self.weights, round_number)
        if fused is not None:
            self.weights, self.anchors = fused.weights, fused.extras
        return fused
