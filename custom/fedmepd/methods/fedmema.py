"""FedMEMA: federated modality-specific encoders and multimodal anchors, the predecessor of FedMEPD.

Dai et al., AAAI 2024, arXiv 2403.11803.

Exchanged: the encoders of a site's modalities, and the class anchors.
Kept at the site: the decoder, the calibration (LACCA), the auxiliary decoder.

It is FedMEPD with ``personalization.patience`` 0 and three anchors a class, as in the paper's released code.

Departures from the paper. An anchor is the mean over at least ``calibration.anchor_cases`` cases, as in FedMEPD.
Network and training are those of every method here. In phantom jobs the calibration has the residual connection of
FedMEPD's phantom jobs, so that the two can be compared.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedmepd.config import Settings
from fedmepd.methods.fedmepd import CalibrationSettings, FedMEPDAtFusionSite, FedMEPDAtSite, FedMEPDSettings
from fedmepd.methods.method import Method
from fedmepd.methods.parts.encoders_only import EncodersAtServer


class FedMEMACalibrationSettings(CalibrationSettings):
    """Anchors of the fusion site and LACCA at the sites."""

    enabled: Literal[True] = Field(True, description="sites calibrate their features with the fusion site's anchors")
    anchors_per_class: int = Field(3, ge=1, le=64, description="clusters per class, N_k in the paper")


class FedMEMASettings(Settings):
    """The settings of a FedMEMA job."""

    presets = {"phantom": {"calibration": FedMEPDSettings.presets["phantom"]["calibration"]}}
    fewest_cases = FedMEPDSettings.fewest_cases

    calibration: FedMEMACalibrationSettings = FedMEMACalibrationSettings()


class FedMEMAAtSite(FedMEPDAtSite):
    """Loads encoders and anchors; its whole decoder is personal."""

    personalizes = False


METHOD = Method(
    name="fedmema",
    title="FedMEMA",
    paper="Dai et al., AAAI 2024",
    shared="encoders, class anchors",
    personal="decoder, calibration",
    fusion="trains the averaged encoders in every round, with a decoder of its own, and makes the anchors",
    model="encoders averaged with other sites' and trained at the fusion site, decoder and calibration trained here "
    "alone",
    global_model="encoders averaged over the sites, trained at the fusion site with its decoder; no calibration",
    at_server=EncodersAtServer,
    at_site=FedMEMAAtSite,
    at_fusion_site=FedMEPDAtFusionSite,
    settings=FedMEMASettings,
    private=True,
)
