"""Central: all cases are pooled and one network is trained on them, every case with the modalities that it has.

No paper: the ceiling that a federation is compared with. It is no federation, since the cases leave the sites. So it
runs only where one process can read the cases of all sites, on phantoms or on a researcher's own data folder, which has
a sub-folder for every site. A site with cases that the server does not have is refused.

Exchanged: the sites receive the network in rounds with validation, and return nothing.
Kept at the site: nothing.

Our choices. A round is one pass over all training cases, those of the fusion site and of the sites, so a job takes as
many steps as those of a federated method together. A batch has cases with the same modalities. A step uses all
modalities of its cases; ``training.modality_dropout`` leaves out some. Sites validate and test the network as it was
after the round before.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field, field_validator

from fedmepd.config import FusionSettings
from fedmepd.data.cases import Case
from fedmepd.data.site import SiteData
from fedmepd.methods.fusion_only import (
    FusionOnlyAtFusionSite,
    FusionOnlyAtServer,
    FusionOnlyAtSite,
    FusionOnlySettings,
    FusionOnlyTrainingSettings,
)
from fedmepd.methods.method import Method


class CentralTrainingSettings(FusionOnlyTrainingSettings):
    """Training on all cases."""

    modality_dropout: bool = Field(
        False, description="train on a random non-empty subset of a case's modalities in each step"
    )


class CentralSettings(FusionOnlySettings):
    """The settings of a job that pools all cases."""

    training: CentralTrainingSettings = CentralTrainingSettings()

    @field_validator("fusion")
    @classmethod
    def _at_the_server(cls, value: FusionSettings) -> FusionSettings:
        if value.site:
            raise ValueError(f"site = {value.site!r}: method central pools all cases at the server: leave it empty")
        return value


class CentralAtFusionSite(FusionOnlyAtFusionSite):
    """Trains on everybody's cases."""

    def cases(self, data: SiteData) -> list[Case]:
        return list(data.train)

    def pool(self, site: str, open_site: Callable[[str], SiteData]) -> SiteData:
        return open_site(site)


METHOD = Method(
    name="central",
    title="Central",
    paper="no federation",
    shared="all cases",
    personal="nothing",
    fusion="trains on the cases of all sites and its own",
    model="trained on the pooled cases of all sites",
    global_model="trained on the pooled cases of all sites",
    averages=False,
    at_server=FusionOnlyAtServer,
    at_site=FusionOnlyAtSite,
    at_fusion_site=CentralAtFusionSite,
    settings=CentralSettings,
)
