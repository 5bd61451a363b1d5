"""Local: every site trains only on its own cases, and so does the fusion site.

Every federated method is compared with this lower bound.

Exchanged: nothing. The server keeps the fusion site's model.
Kept at the site: everything.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedmepd.config import Settings
from fedmepd.methods.method import AtServer, Fuse, Fused, Method, Shapes, Store, Tensors
from fedmepd.methods.parts.selection import SEGMENTING, parts


class LocalAtServer(AtServer):
    """Keeps the fusion site's model.

    Attributes:
        keeps: parts of the network that it keeps.
    """

    keeps = SEGMENTING

    def __init__(self, settings: Settings, weights: Tensors, store: Store):
        super().__init__(settings, parts(weights, self.keeps), store)

    def join(self, site: str, modalities: Sequence[str]) -> None:
        pass

    def send(self, site: str) -> Tensors:
        return {}

    def expect(self, site: str) -> Shapes:
        return {}

    def open(self, round_number: int) -> None:
        pass

    def take(self, site: str, changes: Tensors, cases: int) -> None:
        pass

    def close(self, fuse: Fuse, round_number: int) -> Fused | None:
        fused = fuse(self.weights, round_number)
        if fused is not None:
            self.weights = fused.weights
        return fused


METHOD = Method(
    name="local",
    title="Local",
    paper="no exchange",
    shared="nothing",
    personal="the whole network",
    fusion="trains alone",
    model="trained here alone",
    global_model="trained at the fusion site alone",
    averages=False,
    at_server=LocalAtServer,
    private=True,
)
