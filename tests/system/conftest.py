import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fedmepd.data.phantom import case_names, phantom_case
from fedmepd.data.phantom_heads import SPACING_MM
from fedmepd.tasks.brats import BRATS, PROTOCOL_SUBSETS
from tests.system.simulator import TINY, in_process

SITES = {"site-1": PROTOCOL_SUBSETS[0], "site-2": PROTOCOL_SUBSETS[1], "fusion": BRATS.modalities}
CASES = 5


def write_cases(folder, site, count, first=0, modalities=None):
    """Writes phantom cases of a site, a folder each."""
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    for case in case_names(site)[first : first + count]:
        images, label = phantom_case(site, case, seed=0)
        volumes = {modality.lower(): images[modality] for modality in modalities or SITES[site]} | {"seg": label}
        (folder / case).mkdir(parents=True)
        for word, volume in volumes.items():
            nibabel.save(nibabel.Nifti1Image(volume, affine), folder / case / f"{case}_{word}.nii.gz")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """A data folder with two sites and the fusion site, five phantom cases each."""
    folder = tmp_path_factory.mktemp("cohort")
    for site in SITES:
        write_cases(folder / site, site, CASES)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def open_sites():
    """Sites with few cases that tell all their means, and whose runs can be repeated to the bit.

    For a module, not the session: a worker that goes on with other tests must not take these settings along.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMEPD_MIN_COUNT", "1")
        patch.setenv("FEDMEPD_REPRODUCIBLE", "yes")
        yield


@pytest.fixture
def small_disk(monkeypatch):
    """Mounts a small disk of its own over a folder; needs the rights for it."""
    mounted = []

    def mount(folder: Path, megabytes: int = 32) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "fedmepd", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no right to mount a disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def reference(tmp_path_factory, cohort, cache):
    """Results and final weights of the tiny federation in one process, without FLARE."""
    return in_process(tmp_path_factory.mktemp("reference"), TINY, cohort, cache)
