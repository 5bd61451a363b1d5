from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from fedmepd.evaluation import site_results
from fedmepd.federation.diary import Diary
from tests.evaluation.runs import validation
from tests.federation import bits
from tests.federation.drive import make, play, same, site_state
from tests.tiny import settings

FILTERS = {"levels.0.fuse": 4, "classifier": 4}


def board(folder: Path) -> dict[str, list[int]]:
    """The rounds of each scalar and of each picture in a folder's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    found = {tag: [event.step for event in events.Scalars(tag)] for tag in tags["scalars"]}
    return found | {tag: [event.step for event in events.Images(tag)] for tag in tags["images"]}


@pytest.fixture
def diary(tiny, tmp_path):
    def make_one(lines: list[str] | None = None) -> Diary:
        return Diary(
            "site-1", settings(), tiny.data("site-1"), tmp_path, FILTERS, ([] if lines is None else lines).append
        )

    return make_one


def written(folder: Path) -> dict:
    return site_results.read(folder / "site.json")


def end(diary: Diary, number: int, personal: int = 0) -> None:
    diary.end_round(
        number, {"total": 2.0}, validation(number, 0.5) if number % 2 == 0 else None, {"classifier": personal}
    )


def test_rounds_are_noted_and_go_on_in_a_new_process(diary, tmp_path) -> None:
    first = diary()
    for number in (1, 2, 3):
        end(first, number, personal=number // 2)
    # The site's state of round 3 was lost: it goes on after round 2.
    second = diary()
    second.rewind(2)
    end(second, 3, personal=3)
    content = written(tmp_path)
    assert [entry["round"] for entry in content["history"]["rounds"]] == [1, 2, 3]
    assert [entry["round"] for entry in content["history"]["validation"]] == [2]
    assert content["history"]["personal"]["classifier"] == [[2, 1], [3, 3]]
    assert (content["round"], content["status"], content["filters"]) == (3, "running", FILTERS)


def test_the_sites_own_tensorboard(diary, tmp_path) -> None:
    of = diary()
    end(of, 1)
    end(of, 2, personal=2)
    found = board(tmp_path / "tb_events" / "site-1")
    assert found["2_training/loss_total"] == [1, 2] and found["1_scores/validation_mdsc"] == [2]
    assert found["3_personal_filters/share"] == [1, 2]


def test_damaged_notes_are_said_and_begun_anew(diary, tmp_path) -> None:
    (tmp_path / "site.json").write_text("{")
    lines: list[str] = []
    end(diary(lines), 4)
    assert len(lines) == 1 and str(tmp_path / "site.json") in lines[0]
    assert [entry["round"] for entry in written(tmp_path)["history"]["rounds"]] == [4]


def test_a_full_disk_stops_nothing(diary, tmp_path, monkeypatch) -> None:
    lines: list[str] = []
    of = diary(lines)
    end(of, 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        end(of, 2)
    assert len(lines) == 1 and "No space left on device" in lines[0]
    assert written(tmp_path)["round"] == 1
    end(of, 3)
    assert [entry["round"] for entry in written(tmp_path)["history"]["rounds"]] == [1, 2, 3]


def test_tensorboard_goes_on_after_a_failed_write(diary, tmp_path, monkeypatch) -> None:
    """As on a full disk: TensorBoard's own thread fails, and every later call with it."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    lines: list[str] = []
    of = diary(lines)
    end(of, 1)
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        end(of, 2)
        end(of, 3)
    # TensorBoard reads files in the order of their names, and those have the second.
    time.sleep(1.1)
    end(of, 4)
    assert [line.partition("[Errno")[2] for line in lines] == [" 28] No space left on device"] * 2
    assert board(tmp_path / "tb_events" / "site-1")["2_training/loss_total"] == [1, 4]
    assert [entry["round"] for entry in written(tmp_path)["history"]["rounds"]] == [1, 2, 3, 4]


def test_a_whole_run(finished) -> None:
    """What a site notes is what the server has of it, and its pictures are of its own cases."""
    run, results = finished("fedmepd").folder, finished("fedmepd").results
    for entry in results["sites"]:
        folder = run / entry["name"]
        own = written(folder)
        assert (own["status"], own["test"], own["round"]) == ("finished", entry["test"], 3)
        assert own["cases"] == entry["cases"] and own["modalities"] == entry["modalities"]
        history = json.loads((run / "results/history.json").read_text())[entry["name"]]
        assert own["history"]["validation"] == history["validation"]
        losses = [(of["round"], of["total"]) for of in history["rounds"]]
        assert [(of["round"], of["total"]) for of in own["history"]["rounds"]] == losses
        assert own["filters"] == results["filters"]
        tests = min(3, entry["cases"]["test"])
        assert len(own["examples"]) == tests and own["examples"]["best"] >= entry["test"]["mdsc"] - 1e-6
        assert {file.stem for file in (folder / "overlays").glob("*.png")} == set(own["examples"])
        found = board(folder / "tb_events" / entry["name"])
        assert found["7_cases/overlay_best"] == [3] and found["1_scores/test_dice_WT"] == [3]
        assert found["7_cases/overlay_validation"][0] == 2
        assert "case-" not in (folder / "site.json").read_text() and str(run) not in (folder / "site.json").read_text()


def test_filters_that_are_personal_are_counted_as_at_the_server(finished) -> None:
    """The site knows a round's personal filters when it is sent them: one round after the server counted them."""
    folder = finished("fedmepd").folder
    history = json.loads((folder / "results/history.json").read_text())["site-1"]["personal"]
    own = written(folder / "site-1")["history"]["personal"]
    expected = {
        layer: [[number + 1, count] for number, count in steps if number < bits.ROUNDS]
        for layer, steps in history.items()
    }
    assert any(expected.values()) and {layer: steps for layer, steps in own.items() if steps} == {
        layer: steps for layer, steps in expected.items() if steps
    }


def test_nothing_that_trains_depends_on_it(finished, tiny, tmp_path, monkeypatch) -> None:
    """With and without what a site notes, the weights are the same bits."""
    noted = finished("fedmepd").folder
    for method in ("end_round", "better", "rewind"):
        monkeypatch.setattr(Diary, method, lambda *_: None)
    last = bits.ROUNDS - 1
    play(*make(tiny, bits.of("fedmepd", "float32"), tmp_path), last)
    assert (noted / "site-1/site.json").is_file() and not (tmp_path / "site-1/site.json").exists()
    states = [site_state(folder, "site-1", last)["network"] for folder in (noted, tmp_path)]
    assert same(*states) and all(torch.isfinite(value).all() for value in states[0].values())
