"""The two components that ScatterAndGather asks for; the model itself belongs to the federation server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.abstract.learnable import Learnable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.abstract.shareable_generator import ShareableGenerator

from fedmepd.errors import FedMEPDError
from fedmepd.flare import translation

if TYPE_CHECKING:
    from fedmepd.federation.server import FederationServer


class RoundAggregator(Aggregator):
    """Hands every update to the federation server as it arrives, and keeps what the round's progress line needs.

    Args:
        server: owns the model and the sums of the round.
        finish: the server's part of a round, run where ScatterAndGather aggregates.
        log: takes the line about a refused update.
    """

    def __init__(self, server: FederationServer, finish: Callable[[FLContext], None], log: Callable[[str], None]):
        super().__init__()
        self._server = server
        self._finish = finish
        self._log = log
        self.reset(None)

    def reset(self, fl_ctx: FLContext | None):
        self.reports: dict[str, dict[str, Any]] = {}
        self.bytes: dict[str, tuple[int, int]] = {}

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        site = fl_ctx.get_peer_context().get_identity_name()
        try:
            update = translation.update_of(site, shareable)
            self._server.accept(site, update, translation.bytes_of(shareable))
        except FedMEPDError as error:
            # Refused, or the server could not keep it.
            self._log(str(error))
            return False
        self.reports[site] = update.report
        self.bytes[site] = translation.bytes_of(shareable)
        return True

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        self._finish(fl_ctx)
        return Shareable()


class NoGlobalModel(ShareableGenerator):
    """Stands in for the one model that ScatterAndGather would send to all: here every site gets its own payload."""

    def learnable_to_shareable(self, model: Learnable, fl_ctx: FLContext) -> Shareable:
        return Shareable()

    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> Learnable:
        return make_model_learnable({}, {})
