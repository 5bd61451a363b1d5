import os
import shutil
from types import SimpleNamespace

import psutil
import torch

from fedmepd.doctor.computer import Computer


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=100, available=80))
    computer = Computer(tmp_path)
    assert computer.memory() == (100, 80)
    (tmp_path / "memory.current").write_text("10\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert computer.memory() == (100, 80)
    (tmp_path / "memory.max").write_text("40\n")
    assert computer.memory() == (40, 30)
    (tmp_path / "memory.max").write_text("95\n")
    assert computer.memory() == (95, 80)


def test_a_gpus_memory(monkeypatch):
    """PyTorch says the free memory first."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 16))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU-X {device.index}")
    assert Computer().gpu(torch.device("cuda:1")) == ("GPU-X 1", 16, 3)


def test_disks_of_this_machine(tmp_path):
    """A folder that is not there yet lies on the disk of the nearest one above it that is."""
    later = tmp_path / "not" / "yet"
    assert Computer().disk(later) == os.stat(tmp_path).st_dev
    assert 0 < Computer().free_space(later) <= shutil.disk_usage(tmp_path).total
    (tmp_path / "file").touch()
    assert Computer().disk(tmp_path / "file") == os.stat(tmp_path).st_dev


def test_which_folders_can_be_written(tmp_path, monkeypatch):
    """To write into a folder one must be able to enter it too. Asked of the kernel, whose answer to root is yes."""
    asked = []
    monkeypatch.setattr(os, "access", lambda folder, mode: asked.append((folder, mode)))
    assert not Computer().writable(tmp_path / "not" / "yet")
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]
