"""A federation in which one site outlines the whole tumour alone: it takes part with what it knows."""

from __future__ import annotations

import shutil

import nibabel
import numpy as np

from fedmepd.cli import main
from fedmepd.evaluation.tables import console_table
from fedmepd.federation.in_process import run_in_process
from tests.tiny import SITES, settings


def test_means_count_what_each_site_knows(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    shutil.copytree(tiny.machine.data, data)
    for file in (data / "site-2").rglob("*_seg.nii.gz"):
        label = nibabel.load(file)
        whole = (np.asanyarray(label.dataobj) > 0).astype("uint8")
        nibabel.save(nibabel.Nifti1Image(whole, label.affine), file)
    (tmp_path / "whole.yaml").write_text("values: {0: background, 1: WT}\nclasses: [WT]\n")
    shares = ["--train", "0.5", "--validation", "0.2"]
    assert main(["data", "init", str(data / "site-2"), "--labels", str(tmp_path / "whole.yaml"), *shares]) == 0
    machine = replace_data(tiny.machine, data, tmp_path / "cache")
    results = run_in_process(settings("fedavg", rounds=1), machine, tmp_path / "run", list(SITES))
    full, partial = results["sites"]
    assert list(full["test"]["dice"]) == ["WT", "TC", "ET"] and list(partial["test"]["dice"]) == ["WT"]
    assert partial["test"]["mdsc"] == partial["test"]["dice"]["WT"] and list(partial["test"]["hd95_mm"]) == ["WT"]
    mean = results["mean"]["dice"]
    assert mean["WT"] == (full["test"]["dice"]["WT"] + partial["test"]["dice"]["WT"]) / 2
    assert (mean["TC"], mean["ET"]) == (full["test"]["dice"]["TC"], full["test"]["dice"]["ET"])
    text = console_table(results)
    assert "site-2: its labels do not tell TC, ET, or fewer of its cases than its min_count have it" in text


def replace_data(machine, data, cache):
    """The same machine with another data folder and cache."""
    return machine.model_copy(update={"data": data, "cache": cache})
