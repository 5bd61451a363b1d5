import pytest
import torch

from fedmepd.doctor.computer import Computer
from fedmepd.doctor.federation import Expected
from fedmepd.doctor.kit import Kit
from fedmepd.doctor.machine import check_compute, check_disk
from fedmepd.doctor.needs import GIB
from fedmepd.doctor.site_data import Looked
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS

PAPER, PHANTOM = Expected(make_settings("paper")), Expected(make_settings("phantom"), source="job x")
CPU = SiteSettings(device="cpu")
KNOWN = Looked(("FLAIR", "T2"), True)


class Fake(Computer):
    """A computer of so many GiB; everything lies on one disk, but for the folder ``elsewhere``."""

    def __init__(self, memory=(64, 64), gpu_free=16, space=100, elsewhere=None, read_only=None):
        self._memory, self._gpu_free, self._space = memory, gpu_free, space
        self._elsewhere, self._read_only = elsewhere, read_only

    def memory(self):
        total, free = self._memory
        return total * GIB, free * GIB

    def gpu(self, device):
        return "GPU-X", 16 * GIB, self._gpu_free * GIB

    def disk(self, folder):
        return -1 if folder == self._elsewhere else 1

    def free_space(self, folder):
        return self._space * GIB

    def writable(self, folder):
        return folder != self._read_only


class OnGpu(SiteSettings):
    """Of a site that trains on a GPU, whether this machine has one or not."""

    def torch_device(self):
        return torch.device("cuda")


def compute(expected, computer=None, settings=CPU, looked=KNOWN):
    return {check.topic: check for check in check_compute(expected, settings, looked, computer or Fake())}


def test_a_small_job_without_a_gpu():
    found = compute(PHANTOM, Fake(memory=(8, 6)))
    assert [check.status for check in found.values()] == ["ok", "ok", "ok"]
    assert "job x" in found["job"].text and "FLAIR T2" in found["job"].text and "8.0 GiB" in found["memory"].text


def test_a_large_job_without_a_gpu():
    found = compute(PAPER, looked=Looked(BRATS.modalities))
    assert found["GPU"].kind == "none, for a large job" and found["GPU"].status == "warning"
    assert found["job"].kind == "published settings assumed" and "--job" in found["job"].advice
    assert "all modalities, since the site's are not known" in found["job"].text


@pytest.mark.parametrize(
    ("total", "free", "status", "kind"),
    [(3, 3, "error", "too little memory"), (8, 3, "warning", "memory in use"), (8, 7, "ok", "enough")],
)
def test_memory(total, free, status, kind):
    """The published job needs 2.3 GiB for a step with two modalities by measurement, and 4.4 with margins."""
    check = compute(PAPER, Fake(memory=(total, free)))["memory"]
    assert (check.status, check.kind) == (status, kind) and bool(check.advice) == (status != "ok")


@pytest.mark.parametrize(("free", "status", "kind"), [(15, "ok", "enough"), (2, "warning", "GPU memory in use")])
def test_gpu(free, status, kind):
    found = compute(PAPER, Fake(memory=(4, 4), gpu_free=free), OnGpu())
    assert (found["GPU"].status, found["GPU"].kind) == (status, kind) and "GPU-X" in found["GPU"].text
    # The tensors are on the GPU.
    assert found["memory"].status == "ok"


def test_a_gpu_that_is_too_small():
    large = make_settings("paper", {"training": {"batch": 8}})
    check = compute(Expected(large), settings=OnGpu())["GPU"]
    assert (check.status, check.kind) == ("error", "too little GPU memory") and "training.batch" in check.advice


def test_a_device_that_does_not_exist():
    check = compute(PHANTOM, settings=SiteSettings(device="cuda:77"))["GPU"]
    assert check.status == "error" and "cuda:77" in check.text and "local/fedmepd.json" in check.advice


def disk(provisioned, cache, computer, looked=KNOWN):
    kit = Kit.read(provisioned / "site-1")
    return list(check_disk(kit, PHANTOM, SiteSettings(cache=cache), looked, computer))


@pytest.mark.parametrize(
    ("free", "status", "kind"),
    [(1, "error", "too little space"), (3, "warning", "little space"), (100, "ok", "enough")],
)
def test_disk(provisioned, tmp_path, free, status, kind):
    """A run keeps 2 GiB for logs and a tenth for states; folders that are not there yet lie where they will."""
    [check] = disk(provisioned, tmp_path / "not" / "yet", Fake(space=free))
    assert (check.status, check.kind) == (status, kind) and "not/yet" in check.text
    assert "the kit's folder and the cache folder" in check.text


def test_many_cases_need_more(provisioned, tmp_path):
    heads = Looked(("FLAIR", "T1ce", "T1", "T2"), True, ((240 * 240 * 155, 4),) * 250)
    # 250 x 40 MB = 9.4 GiB, and the run.
    assert [check.kind for check in disk(provisioned, tmp_path, Fake(space=10), heads)] == ["too little space"]


def test_two_disks(provisioned, tmp_path):
    """Each is compared with what comes onto it."""
    first, second = disk(provisioned, tmp_path, Fake(space=5, elsewhere=tmp_path))
    assert (first.status, second.status) == ("ok", "ok")
    assert "cache" not in first.text and "kit" not in second.text.split("(")[0] and "up to 0.0 GiB" in second.text


def test_a_folder_that_cannot_be_written(provisioned, tmp_path):
    checks = disk(provisioned, tmp_path, Fake(read_only=tmp_path))
    assert [(check.status, check.kind) for check in checks if check.status == "error"] == [
        ("error", "folder that cannot be written")
    ]
