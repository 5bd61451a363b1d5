"""The methods, told apart by who trains, what is exchanged and what the fusion site does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """What distinguishes one method from another.

    Attributes:
        sites_train: whether the sites train at all.
        sends, returns: parts of the network that go to the sites, and that come back as updates.
        fusion: the fusion site trains ``after`` the aggregation, ``among`` the sites as one of them, or ``alone``.
        by_cases: updates are averaged by numbers of cases, without the server's share.
        personalizes: decoder filters may become personal, and sites calibrate with anchors.
        drops_modalities: fusion training leaves out random modalities.
    """

    sites_train: bool
    sends: tuple[str, ...]
    returns: tuple[str, ...]
    fusion: Literal["after", "among", "alone"]
    by_cases: bool = False
    personalizes: bool = False
    drops_modalities: bool = False


METHODS: dict[str, Method] = {
    # Liu et al., Medical Image Analysis 2025.
    "fedmepd": Method(True, ("encoders", "decoder"), ("encoders", "decoder"), "after", personalizes=True),
    # Every site, and the fusion site, on its own.
    "local": Method(True, (), (), "alone"),
    # McMahan et al. 2017: the whole network averaged by cases, the fusion site one of the sites.
    "fedavg": Method(
        True, ("encoders", "decoder", "auxiliary"), ("encoders", "decoder", "auxiliary"), "among", by_cases=True
    ),
    # RFNet (Ding et al. 2021) trained at the fusion site; the sites only use it.
    "fusion_only": Method(False, ("encoders", "decoder"), (), "alone", drops_modalities=True),
}
