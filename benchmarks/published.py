"""Figures of the paper (Liu et al. 2025) on BraTS 2018 and 2020, to compare own runs with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What the paper says of a method; None where we do not know it.

    Attributes:
        title: the method's name in the paper.
        mean: mDSC in %, mean of the sites.
        server: mDSC in % of the server, on cases with all modalities.
        sites: mDSC in % of sites 1 to 8.
        hd95: 95 % Hausdorff distance in voxels (of 1 mm): mean of the sites, server.
    """

    title: str
    mean: float
    server: float | None
    sites: tuple[float, ...] = ()
    hd95: tuple[float | None, float | None] = (None, None)


# By the names that the plans give the methods.
PUBLISHED: dict[str, dict[str, Published]] = {
    "brats2018": {
        "local": Published("Local", 66.95, 82.56, (71.59, 63.99, 87.74, 64.93, 42.37, 48.13, 89.15, 67.67)),
        "fedavg": Published(
            "FedAvg", 59.04, 80.10, (61.13, 61.91, 82.11, 59.59, 18.46, 42.12, 84.88, 62.09), (23.43, 14.52)
        ),
        "fedmsplit": Published(
            "FedMSplit", 71.23, 79.93, (82.48, 69.92, 92.16, 68.21, 48.99, 54.09, 87.87, 66.09), (18.01, 12.40)
        ),
        "fediot": Published("FedIoT", 69.18, 84.89, (81.81, 70.66, 92.35, 61.69, 41.97, 48.33, 88.31, 68.36)),
        "creamfl": Published("CreamFL", 67.21, 82.83),
        "fedmepd": Published(
            "FedMEPD", 75.70, 84.98, (82.99, 74.58, 93.73, 75.83, 58.87, 59.35, 90.69, 69.62), (12.98, 6.52)
        ),
    },
    "brats2020": {
        "local": Published("Local", 71.38, 88.07),
        "fedavg": Published("FedAvg", 61.91, 87.61),
        "fednorm_plus": Published("FedNorm", 63.09, None),
        "fedmsplit": Published("FedMSplit", 73.80, 86.88),
        "creamfl": Published("CreamFL", 67.09, 87.69),
        "fediot": Published("FedIoT", 71.20, 88.77),
        "fedmepd": Published("FedMEPD", 75.90, 89.39, (), (13.41, None)),
    },
}
