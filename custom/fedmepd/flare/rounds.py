"""The two components that ScatterAndGather asks for; model and sums of the round belong to the federation server."""

from __future__ import annotations

from collections.abc import Callable

from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.abstract.learnable import Learnable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.abstract.shareable_generator import ShareableGenerator


class RoundEnd(Aggregator):
    """Does the server's part of a round where ScatterAndGather aggregates.

    Updates do not pass through it: an aggregator learns the sender's name only from what the sender says of itself,
    the controller knows it from FLARE's login.

    Args:
        finish: the server's part of a round.
    """

    def __init__(self, finish: Callable[[FLContext], None]):
        super().__init__()
        self._finish = finish

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        return False

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        self._finish(fl_ctx)
        return Shareable()


class NoGlobalModel(ShareableGenerator):
    """Stands in for the one model that ScatterAndGather would send to all: here every site gets its own payload."""

    def learnable_to_shareable(self, model: Learnable, fl_ctx: FLContext) -> Shareable:
        return Shareable()

    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> Learnable:
        return make_model_learnable({}, {})
