"""Aggregation of the sites' updates as they arrive (algorithm section 3.3).

Everything is a change against the weights that the server sent, so the means of the weights are those weights plus the
means of the changes: E_m + mean_i Delta_im, and W_s + (1 - lambda) sum_i H_ij Delta_ij / sum_i H_ij.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedmepd.config import AggregationSettings
from fedmepd.methods.parts.exact_sum import ExactSum
from fedmepd.methods.parts.robust import RobustAggregation
from fedmepd.methods.parts.selection import DECODER

if TYPE_CHECKING:
    from fedmepd.methods.method import Store


class Aggregation:
    """One round's weighted sums of changes.

    Memory does not grow with the number of sites, and the order of the sites does not change the result.

    Attributes:
        cosines, left_out: of no site, see :class:`~fedmepd.methods.parts.robust.RobustAggregation`.

    Args:
        state: the server's weights, by name, which the sites' changes refer to.
        keys: the weights that sites may return.
        server_share: share of the server's own decoder filter kept; 0 where updates are averaged by cases.
    """

    def __init__(self, state: dict[str, Tensor], keys: list[str], server_share: float):
        self.cosines: dict[str, float] = {}
        self.left_out: dict[str, float] = {}
        self._state = state
        self._server_share = server_share
        self._sums = {key: ExactSum(state[key].shape) for key in keys}
        # Decoder filters have a weight each, every other tensor has one.
        self._weights = {
            key: ExactSum(state[key].shape[:1] if key.startswith(DECODER) else torch.Size()) for key in keys
        }

    def add(self, site: str, key: str, change: Tensor, weight: float | Tensor, rows: Tensor | None = None) -> None:
        """Adds a site's change of one tensor.

        Args:
            site: its name.
            key: name of the tensor.
            change: of the whole tensor, or of ``rows``.
            weight: one number, or one for each given row.
            rows: bool mask of the filters that the site shares.
        """
        weight = torch.as_tensor(weight, dtype=torch.float64)
        self._sums[key].add(change, weight, rows)
        if key.startswith(DECODER):
            self._weights[key].add(weight.expand(change.shape[0]), rows=rows)
        else:
            self._weights[key].add(weight)

    def result(self) -> dict[str, Tensor]:
        """The new weights; a tensor or filter that no site returned stays as it is."""
        merged = dict(self._state)
        for key, total in self._sums.items():
            weight = self._weights[key].value()
            weight = weight.reshape(-1, *[1] * (self._state[key].ndim - 1)) if weight.ndim else weight
            mean = torch.where(weight > 0, total.value() / weight.clamp_min(1e-12), 0.0)
            moved = (1 - self._server_share) * mean if key.startswith(DECODER) else mean
            merged[key] = (self._state[key].double() + moved).float()
        return merged


def aggregation(
    settings: AggregationSettings, state: dict[str, Tensor], keys: list[str], server_share: float, store: Store
) -> Aggregation | RobustAggregation:
    """Returns the means of a round as the job wants them: of all changes, or robust ones.

    Args:
        settings: ``aggregation`` of the job.
        state, keys, server_share: see :class:`Aggregation`.
        store: keeps the changes where they have to wait.
    """
    if not settings.robust():
        return Aggregation(state, keys, server_share)
    return RobustAggregation(state, keys, server_share, settings.trim, settings.direction, store)
