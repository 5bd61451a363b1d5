"""The decoder's filters: the unit that is shared or personal (algorithm section 3.5)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fedmepd.methods.parts.exact_sum import LARGEST_WEIGHT
from fedmepd.methods.parts.row_sums import row_products
from fedmepd.methods.parts.selection import DECODER


def decoder_layers(state: dict[str, Tensor]) -> dict[str, int]:
    """The decoder's convolutions, each with its number of filters.

    A filter is one output channel of a convolution, with its bias where it has one.

    Args:
        state: a network's weights by name.
    """
    return {
        key.removesuffix(".weight"): value.shape[0]
        for key, value in state.items()
        if key.startswith(DECODER) and key.endswith(".weight")
    }


def layer_of(key: str) -> str:
    """The convolution that a weight or bias belongs to."""
    return key.rpartition(".")[0]


def cosine_and_norms(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compares two changes of a convolution's weight, filter by filter.

    Args:
        first, second: (filters, ...).

    Returns:
        cosine, 0 where a change is zero; norm of the first; norm of the second; each (filters,), float64.
    """
    squares, others, products = row_products(first, second)
    norms = squares.sqrt(), others.sqrt()
    product = norms[0] * norms[1]
    cosine = torch.where(product > 0, products / product.clamp_min(1e-300), 0.0)
    return cosine, *norms


class PersonalFilters:
    """One site's state for each decoder filter: patience left, and weight in the aggregation.

    Args:
        layers: filters of each convolution.
        patience: opposing rounds until a filter becomes personal; 0 makes all of them personal from the start, None
            never any.
        weight_ema: share of the old aggregation weight kept.

    Attributes:
        all_patience: patience left of all filters, convolution by convolution, (filters,), uint8.
        all_weights: their aggregation weights, (filters,).
        patience: by convolution, views of ``all_patience``.
        weights: by convolution, views of ``all_weights``.
    """

    def __init__(self, layers: dict[str, int], patience: int | None, weight_ema: float):
        self.limit = patience
        self.weight_ema = weight_ema
        self._layers = layers
        start = 255 if patience is None else patience
        total = sum(layers.values())
        # One tensor for all: a decoder has dozens of convolutions, most of them with few filters.
        self.all_patience = torch.full((total,), start, dtype=torch.uint8)
        self.all_weights = torch.full((total,), float(start > 0))
        counts = list(layers.values())
        self.patience = dict(zip(layers, self.all_patience.split(counts), strict=True))
        self.weights = dict(zip(layers, self.all_weights.split(counts), strict=True))

    def shared(self, layer: str) -> Tensor:
        """Which filters the site shares, bool (filters,)."""
        return self.patience[layer] > 0

    def personal_filters(self) -> dict[str, int]:
        """Number of personal filters of each convolution."""
        return {layer: int((~self.shared(layer)).sum()) for layer in self.patience}

    def update(
        self,
        server_changes: dict[str, Tensor],
        site_changes: dict[str, Tensor],
        case_share: float,
        least_move: float = 0.0,
    ) -> None:
        """Counts one round (section 3.5): patience by the sign of the cosine, weight by the ratio of the norms.

        Args:
            server_changes: change of the server's weight over the round by convolution, (filters, ...).
            site_changes: change of the site's weight in its training by convolution, of the shared filters only,
                (shared, ...). Of a convolution that is not there, nothing changes.
            case_share: the site's share of all sites' cases.
            least_move: the site's change of a filter says something of its weight only if it is larger than this share
                of the server's.
        """
        if self.limit is None or not site_changes:
            return
        compared = [
            cosine_and_norms(_rows(server_changes[layer], self.shared(layer)), site_changes[layer])
            for layer in self._layers
            if layer in site_changes
        ]
        cosine, server_norm, site_norm = (torch.cat(parts) for parts in zip(*compared, strict=True))
        there = torch.tensor([layer in site_changes for layer in self._layers])
        counted = (self.all_patience > 0) & there.repeat_interleave(torch.tensor(list(self._layers.values())))
        left = self.all_patience[counted].to(torch.int16)
        left = torch.where(cosine < 0, left - 1, torch.where(cosine > 0, self.limit, left))
        ratio = server_norm / site_norm
        old = self.all_weights[counted].double()
        new = (self.weight_ema * old + (1 - self.weight_ema) * ratio * case_share).clamp_max(LARGEST_WEIGHT)
        # A filter that has not moved, or hardly, says nothing of its weight.
        new = torch.where((site_norm > 0) & (site_norm > least_move * server_norm), new, old)
        self.all_patience[counted] = left.to(torch.uint8)
        self.all_weights[counted] = torch.where(left > 0, new, 0.0).float()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Patience and weights by convolution."""
        return {"patience": self.patience, "weights": self.weights}

    def restore(self, state: dict[str, dict[str, Tensor]]) -> None:
        """The inverse of :meth:`state`."""
        for layer in self._layers:
            self.patience[layer].copy_(state["patience"][layer])
            self.weights[layer].copy_(state["weights"][layer])


def _rows(value: Tensor, mask: Tensor) -> Tensor:
    # A mask copies, even where it takes all.
    return value if mask.all() else value[mask]


def bound_weights(sites: Iterable[PersonalFilters], bound: float) -> list[int]:
    """Limits every site's aggregation weight of every filter to ``bound`` times the median over the sites.

    The paper's weight is a ratio of norms. A site that hardly changes a filter would get a weight that exceeds all
    others, by chance or on purpose. So would a site that joins late, because its weights start at 1 and those of the
    others have become smaller by then.

    Args:
        sites: all sites of the run. The median of a filter's weights is over the sites that share it; of two middle
            weights, the lower one is used.
        bound: largest multiple of the median; 0: no limit.

    Returns:
        for every site, how many of its weights were limited.
    """
    sites = list(sites)
    if not bound or not sites:
        return [0] * len(sites)
    weights = torch.stack([site.all_weights for site in sites])
    shared = torch.stack([site.all_patience > 0 for site in sites])
    # Personal filters are sorted behind all others and are not counted.
    ordered = torch.where(shared, weights, torch.inf).sort(dim=0).values
    middle = ((shared.sum(dim=0) - 1) // 2).clamp_min(0)
    limit = bound * ordered.gather(0, middle[None])
    limited = torch.where(shared, torch.minimum(weights, limit), weights)
    for site, row in zip(sites, limited, strict=True):
        site.all_weights.copy_(row)
    return (limited < weights).sum(dim=1).tolist()
