"""What travels between the server and a site, as plain dictionaries of tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Payload:
    """From the server to one site, for one round.

    Attributes:
        round: the round that the site is to train.
        tensors: weights by name (of the decoder only the rows of the filters that the site shares),
            ``anchors.<level>``, and ``patience.<convolution>``, one byte a filter: 0 where it is personal.
    """

    round: int
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Update:
    """From a site to the server.

    Attributes:
        round: the round that was trained.
        tensors: change of every received weight.
        report: counts, scores and seconds, see :class:`~fedmepd.federation.reports.TrainReport`.
    """

    round: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelCopy:
    """A trained model on its way to other sites, see :mod:`fedmepd.federation.cross_site`.

    Attributes:
        modalities: those that it was trained with.
        tensors: weights by name, and ``anchors.<level>``.
    """

    modalities: tuple[str, ...]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class SiteProfile:
    """What a site says of itself before it takes part: names and counts alone.

    Attributes:
        name: the site.
        modalities: those that it owns.
        cases: numbers of ``train``, ``validation`` and ``test`` cases.
        source: ``phantom`` or ``folder``.
        cross_site: what it agrees to, see :class:`fedmepd.site_settings.SiteSettings`.
    """

    name: str
    modalities: tuple[str, ...]
    cases: dict[str, int]
    source: str
    cross_site: str = "none"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**self.__dict__, "modalities": list(self.modalities)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> SiteProfile:
        """The inverse of :meth:`to_json`."""
        return cls(
            content["name"],
            tuple(content["modalities"]),
            dict(content["cases"]),
            content["source"],
            content["cross_site"],
        )
