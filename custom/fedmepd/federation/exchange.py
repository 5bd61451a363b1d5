"""What travels between the server and a site, as plain dictionaries of tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fedmepd.disclosure import Withheld

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
        tensors: change of every received weight, and ``extra.<name>``: what else the method has a site send.
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


@dataclass
class Tested:
    """What the fusion site says of the tested global model.

    Attributes:
        scores: averages; None without test cases.
        each: a :class:`~fedmepd.federation.reports.CaseReports` as plain values.
        withheld: why there are no scores although there are test cases.
    """

    scores: dict[str, Any] | None
    each: dict[str, Any]
    withheld: Withheld | None = None


FusionKind = Literal["fuse", "validate", "test", "test_copy"]


@dataclass
class FusionTask:
    """From the server to a fusion site elsewhere.

    Attributes:
        kind: to train a round (``fuse``), to score the global model on the validation cases (``validate``) or on the
            test cases (``test``), or to test a site's model on them (``test_copy``).
        round: the round that it belongs to.
        names: the global model's weights that the task is about.
        known: the version of the weights that the server believes the fusion site to hold; empty: none.
        tensors: of these weights those that differ from that version, and ``extra.<name>``: what else the method sends
            the fusion site for a round; of ``test_copy``, the model.
        modalities: of ``test_copy``, those of the model.
    """

    kind: FusionKind
    round: int
    names: list[str] = field(default_factory=list)
    known: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()


@dataclass
class FusionReply:
    """From a fusion site elsewhere to the server.

    Attributes:
        round: of the task.
        version: names the weights that both hold from now on, if all tensors arrive as they were sent.
        tensors: weights after a round of training, or their changes, ``anchors.<level>``, and ``extra.<name>``.
        relative: whether the weights are changes.
        digests: of every tensor as it was sent: a privacy filter on the way may have changed it.
        report: plain values, see :class:`~fedmepd.federation.reports.FusionReport`.
        wire_bytes: of tensors, up and down.
    """

    round: int
    version: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    relative: bool = False
    digests: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    wire_bytes: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class SiteProfile:
    """What a site says of itself before it takes part: names and counts alone.

    Attributes:
        name: the site.
        modalities: those that it owns.
        cases: numbers of ``train``, ``validation`` and ``test`` cases.
        source: ``phantom`` or ``folder``.
        cross_site: what it agrees to, see :class:`fedmepd.site_settings.SiteSettings`.
        fusion: numbers of cases, as in ``cases``, that it has as the job's fusion site; None where it is not.
    """

    name: str
    modalities: tuple[str, ...]
    cases: dict[str, int]
    source: str
    cross_site: str = "none"
    fusion: dict[str, int] | None = None

    def takes_part(self) -> bool:
        """Whether it has cases of its own: a hospital may be the fusion site alone."""
        return any(self.cases.values())

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
            content["fusion"],
        )
