from __future__ import annotations

import json
import shutil

import pytest
import torch

from benchmarks import data, measure
from fedmepd.data.batches import TrainingBatches
from tests.data.files import SHAPE, write_case


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    return [write_case(folder, name, ("T1", "T2")) for name in "abc"]


def test_reading(cases, tmp_path):
    row = data.reading(cases[0], tmp_path, pairs=2)
    # What is left of the volume around the box of test files, two voxels wide on every side.
    assert row["voxels"] == [side - 4 for side in SHAPE]
    assert row["file_bytes"] == sum(file.stat().st_size for file in cases[0].files)
    [stored] = (tmp_path / "store").glob("*.pt")
    assert row["store_bytes"] == stored.stat().st_size
    assert row["prepare_seconds"]["median"] > row["store_seconds"]["median"] > 0
    # Every preparation began with nothing: one to compare, one to warm up, two measured.
    assert len(list(tmp_path.glob("fresh-*/*.pt"))) == 4


def test_what_makes_a_case_be_prepared_again(tmp_path):
    """The contents of files count, and which modalities they are; neither their times nor anything of the job does."""
    case = write_case(tmp_path / "files", "case", ("T1", "T2"))
    assert data.keys(case, tmp_path / "store", crop=24) == {
        "nothing was there": True,
        "nothing": False,
        "settings of the job: crop, augmentation, seed": False,
        "modalities": True,
        "time of a file, same content": False,
        "content of a file": True,
    }


@pytest.fixture
def loads(monkeypatch):
    """The batches that have been loaded, in order."""
    loaded, load = [], TrainingBatches._load

    def noted(self, indices, number):
        loaded.append(tuple(indices))
        return load(self, indices, number)

    monkeypatch.setattr(TrainingBatches, "_load", noted)
    return loaded


def test_straightforward_loads_the_same_batches_when_they_are_asked_for(cases, tmp_path, loads):
    batches = TrainingBatches(cases, data.settings(crop=16), (), tmp_path)
    expected = list(batches.epoch(3))
    loads.clear()
    inside = TrainingBatches(cases, data.settings(crop=16), (), tmp_path, data.Inline)
    for step, (batch, ours) in enumerate(zip(inside.epoch(3), expected, strict=True), start=1):
        assert loads == [made.cases for made in expected[:step]]
        assert torch.equal(batch.images, ours.images) and torch.equal(batch.label, ours.label)
    # The product has the next one under way by then.
    loads.clear()
    epoch = batches.epoch(3)
    next(epoch), next(epoch)
    assert len(list(epoch)) == 1 and len(loads) == 3


def test_epoch_on_a_clock(monkeypatch):
    clock = [10.0]
    monkeypatch.setattr(data, "perf_counter", lambda: clock[0])

    def epoch():
        for seconds in (3, 0, 2):
            clock[0] += seconds
            yield

    def step(_):
        clock[0] += 100

    assert data.run_epoch(epoch(), step) == data.Epoch(305, [3, 0, 2])


def test_waiting(cases, tmp_path, monkeypatch):
    """The first epoch and each way's two epochs take 2 s here, 0.5 of them for the first batch and 0.1 for others."""
    taken = []

    def run_epoch(batches, step):
        taken.append(len(list(batches)))
        return data.Epoch(2.0, [0.5, 0.1, 0.1])

    monkeypatch.setattr(data, "run_epoch", run_epoch)
    row = data.waiting(cases, tmp_path, crop=16, step=data.stand_in(0.001), pairs=2)
    assert taken == [3] * (1 + 2 * 3)
    assert row["first_epoch_waits"] == [0.5, 0.1, 0.1]
    for name in ("product", "straightforward", "steps_alone"):
        assert row[name]["first_wait"]["median"] == 0.5 and row[name]["later_wait"]["highest"] == 0.1
        assert row[name]["waiting_share"] == pytest.approx(0.35) and row[name]["epoch_seconds"]["median"] == 2


@pytest.mark.parametrize("trains", [False, True])
def test_memory(tmp_path, monkeypatch, trains):
    """One figure for every epoch, and the slope of those after the first half: here 2 MiB an epoch."""
    found = []

    def in_this_process(prepare, *arguments):
        found.extend(prepare(*arguments)())
        return measure.Run([0.0, 90.0, 10.0, 12.0, 14.0], 1.0, 0.0, 0.0)

    monkeypatch.setattr(measure, "in_fresh_process", in_this_process)
    row = data.memory(tmp_path, trains, epochs=4, threads=1)
    assert len(found) == 4 and all(mib > 100 for mib in found)
    assert row["slope"] == pytest.approx(2) and row["what"].endswith("training") == trains


def test_report(tmp_path, monkeypatch, capsys, cases):
    def in_this_process(prepare, *arguments):
        return measure.Run([100.0] * 5 + [101.0], 1.0, 0.0, 0.0)

    monkeypatch.setattr(measure, "in_fresh_process", in_this_process)
    given = shutil.copytree(cases[0].label.parent, tmp_path / "given")
    before = {file: file.stat().st_mtime_ns for file in given.iterdir()}
    data.main(["--quick", "--pairs", "1", "--case", str(given), "--json", str(tmp_path / "data.json")])
    report = json.loads((tmp_path / "data.json").read_text())
    assert [row["part"] for row in report["rows"]] == ["reading", "waiting", "memory", "memory"]
    # The given case is read, never changed.
    assert report["rows"][0]["voxels"] == [side - 4 for side in SHAPE]
    assert before == {file: file.stat().st_mtime_ns for file in given.iterdir()}
    assert "too few epochs" in capsys.readouterr().out


@pytest.mark.parametrize("there", [False, True])
def test_case_without_a_label_or_not_there(tmp_path, capsys, there):
    if there:
        write_case(tmp_path, "case", ("T1", "T2"), label=None)
    with pytest.raises(SystemExit):
        data.main(["--quick", "--case", str(tmp_path / "case")])
    assert f"--case {tmp_path / 'case'}: expected a folder with" in capsys.readouterr().err
