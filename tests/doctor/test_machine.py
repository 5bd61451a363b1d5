import shutil
from types import SimpleNamespace

import psutil
import pytest
import torch

from fedmepd.config import Settings
from fedmepd.doctor import machine as module
from fedmepd.doctor.federation import Expected
from fedmepd.doctor.kit import Kit
from fedmepd.doctor.machine import available_memory, check_compute, check_disk
from fedmepd.doctor.needs import GIB
from fedmepd.doctor.site_data import Looked
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS

PAPER, PHANTOM = Expected(Settings.make("paper")), Expected(Settings.make("phantom"), source="job x")
CPU = SiteSettings(device="cpu")
KNOWN = Looked(("FLAIR", "T2"), True)


def compute(expected, settings=CPU, looked=KNOWN):
    return {check.topic: check for check in check_compute(expected, settings, looked)}


@pytest.fixture
def memory(monkeypatch):
    def have(total, free):
        monkeypatch.setattr(module, "available_memory", lambda: (int(total * GIB), int(free * GIB)))

    return have


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 16 GiB, so many of them free."""

    def have(free):
        monkeypatch.setattr(SiteSettings, "torch_device", lambda settings: torch.device("cuda"))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * GIB), 16 * GIB))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU-X")

    return have


def test_a_small_job_without_a_gpu(memory):
    memory(8, 6)
    found = compute(PHANTOM)
    assert [check.status for check in found.values()] == ["ok", "ok", "ok"]
    assert "job x" in found["job"].text and "FLAIR T2" in found["job"].text and "8.0 GiB" in found["memory"].text


def test_a_large_job_without_a_gpu(memory):
    memory(64, 60)
    found = compute(PAPER, looked=Looked(BRATS.modalities))
    assert found["GPU"].kind == "none, for a large job" and found["GPU"].status == "warning"
    assert found["job"].kind == "published settings assumed" and "--job" in found["job"].advice
    assert "all modalities, since the site's are not known" in found["job"].text


@pytest.mark.parametrize(
    ("total", "free", "status", "kind"),
    [(3, 3, "error", "too little memory"), (8, 3, "warning", "memory in use"), (8, 7, "ok", "enough")],
)
def test_memory(memory, total, free, status, kind):
    """The published job needs 2.3 GiB for a step with two modalities by measurement, and 4.4 with margins."""
    memory(total, free)
    check = compute(PAPER)["memory"]
    assert (check.status, check.kind) == (status, kind) and bool(check.advice) == (status != "ok")


@pytest.mark.parametrize(("free", "status", "kind"), [(15, "ok", "enough"), (2, "warning", "GPU memory in use")])
def test_gpu(gpu, memory, free, status, kind):
    gpu(free)
    memory(4, 4)
    found = compute(PAPER)
    assert (found["GPU"].status, found["GPU"].kind) == (status, kind) and "GPU-X" in found["GPU"].text
    # The tensors are on the GPU.
    assert found["memory"].status == "ok"


def test_a_gpu_that_is_too_small(gpu, memory):
    gpu(16)
    memory(64, 64)
    large = Settings.make("paper", {"training": {"batch": 8}})
    check = compute(Expected(large))["GPU"]
    assert (check.status, check.kind) == ("error", "too little GPU memory") and "training.batch" in check.advice


def test_a_device_that_does_not_exist():
    check = compute(PHANTOM, SiteSettings(device="cuda:77"))["GPU"]
    assert check.status == "error" and "cuda:77" in check.text and "local/fedmepd.json" in check.advice


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=100, available=80))
    assert available_memory(tmp_path) == (100, 80)
    (tmp_path / "memory.current").write_text("10\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) == (100, 80)
    (tmp_path / "memory.max").write_text("40\n")
    assert available_memory(tmp_path) == (40, 30)
    (tmp_path / "memory.max").write_text("95\n")
    assert available_memory(tmp_path) == (95, 80)


def disk(provisioned, cache, looked=KNOWN):
    return list(check_disk(Kit.read(provisioned / "site-1"), PHANTOM, SiteSettings(cache=cache), looked))


@pytest.mark.parametrize(
    ("free", "status", "kind"),
    [(1, "error", "too little space"), (3, "warning", "little space"), (100, "ok", "enough")],
)
def test_disk(provisioned, tmp_path, monkeypatch, free, status, kind):
    """A run keeps 2 GiB for logs and a tenth for states; folders that are not there yet lie where they will."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free * GIB))
    [check] = disk(provisioned, tmp_path / "not" / "yet")
    assert (check.status, check.kind) == (status, kind) and "not/yet" in check.text
    assert "the kit's folder and the cache folder" in check.text


def test_many_cases_need_more(provisioned, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10 * GIB))
    heads = Looked(("FLAIR", "T1ce", "T1", "T2"), True, ((240 * 240 * 155, 4),) * 250)
    # 250 x 40 MB = 9.4 GiB, and the run.
    assert [check.kind for check in disk(provisioned, tmp_path, heads)] == ["too little space"]


def test_two_disks(provisioned, tmp_path, monkeypatch):
    """Each is compared with what comes onto it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=5 * GIB))
    real = module._existing

    class Elsewhere:
        def __init__(self, folder):
            self.folder = folder

        def stat(self):
            return SimpleNamespace(st_dev=-1)

        def __fspath__(self):
            return str(self.folder)

    monkeypatch.setattr(module, "_existing", lambda folder: Elsewhere(folder) if folder == tmp_path else real(folder))
    first, second = disk(provisioned, tmp_path)
    assert (first.status, second.status) == ("ok", "ok")
    assert "cache" not in first.text and "kit" not in second.text.split("(")[0] and "up to 0.0 GiB" in second.text


def test_a_folder_that_cannot_be_written(provisioned, tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "access", lambda folder, mode: folder != tmp_path)
    checks = disk(provisioned, tmp_path)
    assert [(check.status, check.kind) for check in checks if check.status == "error"] == [
        ("error", "folder that cannot be written")
    ]
