"""A site's own label values, from `--labels FILE` to a trained site."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedmepd.cli import main
from fedmepd.data.batches import TrainingBatches
from fedmepd.data.manifest import FILE_NAME, read_manifest
from fedmepd.data.site import open_fusion_data, open_site_data
from fedmepd.errors import DataError
from fedmepd.federation.evaluate import score_cases
from fedmepd.networks.build import build_network
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS
from fedmepd.tasks.labels import IGNORE
from fedmepd.training.epoch import EpochReport, make_optimizer, train_epoch
from tests.data.files import tumour, write_case
from tests.tiny import never, settings
from tests.tiny import write_case as write_tiny

WHOLE = "values: {0: background, 5: WT, 9: ignore}\nclasses: [WT]\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))


def whole(kind):
    """The whole tumour as 5, and two voxels to ignore."""
    made = np.where(tumour(kind=kind) > 0, 5, 0).astype("uint8")
    made[2, 2, 2:4] = 9
    return made


def run(*arguments):
    return main(["data", *map(str, arguments)])


def test_a_map_is_kept_in_the_manifest(tmp_path, capsys):
    data, values = tmp_path / "data", tmp_path / "own.yaml"
    values.write_text(WHOLE)
    for number in range(4):
        write_case(data, f"case-{number}", label=whole(number))
    assert run("init", data) == 2
    assert "describe them in a file" not in capsys.readouterr().out
    assert run("check", data, "--labels", values) == 0
    printed = capsys.readouterr().out
    assert "0 5 9  own.yaml: 0, 5 WT, 9 left out" in printed
    rows = [line.split() for line in printed.splitlines()]
    # 8 voxels of tumour and 0, 1, 1 and 2 beside it, in four cases of 720 voxels; 2 of each are left out.
    assert ["4", "36", "9", "WT"] in rows and ["4", "8", "2", "left", "out"] in rows and ["0", "0", "ET"] in rows
    assert run("init", data, "--labels", values, "--train", "0.5", "--validation", "0.25") == 0
    content = json.loads((data / FILE_NAME).read_text())
    assert content["label_values"]["own"]["groups"] == [[0], [1, 2, 3]] and content["cases"][0]["labels"] == "own"
    # The next time nobody has to say it, and a site without the file can read it.
    values.unlink()
    write_case(data, "case-4", label=whole(5))
    assert run("init", data) == 0
    cases, _ = read_manifest(BRATS, data)
    assert len(cases) == 5 and {case.label_groups for case in cases} == {((0,), (1, 2, 3))}
    machine = SiteSettings(data=data, cache=tmp_path / "cache")
    site = open_site_data("a", settings(), machine)
    prepared = TrainingBatches(site.train, settings(), ["a"], site.cache)
    [batch, *_] = prepared.epoch(1)
    assert batch.groups == ((0,), (1, 2, 3)) and set(batch.label.unique().tolist()) <= {0, 1, IGNORE}
    # Anchors need all classes.
    with pytest.raises(DataError, match="fusion training needs labels that tell all of NCR/NET, ED, ET") as error:
        open_fusion_data("", settings(), machine)
    assert error.value.public == "labels for fusion training do not tell all classes"


def test_split_keeps_it_too(tmp_path):
    values, data, out = tmp_path / "own.yaml", tmp_path / "data", tmp_path / "sites"
    values.write_text(WHOLE)
    for number in range(4):
        write_case(data, f"case-{number}", label=whole(number))
    (tmp_path / "sites.yaml").write_text("sites: [{name: north, modalities: [T1], cases: 4}]")
    assert run("split", data, out, "--sites", tmp_path / "sites.yaml", "--labels", values) == 0
    assert {case.label_groups for case in read_manifest(BRATS, out / "north")[0]} == {((0,), (1, 2, 3))}


def test_evaluate_with_a_map(tmp_path, capsys):
    values = tmp_path / "own.yaml"
    values.write_text(WHOLE)
    write_case(tmp_path / "labels", "a", label=whole(0))
    case = write_case(tmp_path / "made", "a", label=tumour(kind=0))
    (tmp_path / "predictions").mkdir()
    case.label.rename(tmp_path / "predictions" / "a.nii.gz")
    command = ["evaluate", "--predictions", tmp_path / "predictions", "--labels", tmp_path / "labels"]
    assert main([*map(str, command), "--label-values", str(values)]) == 0
    printed = capsys.readouterr().out
    assert "do not tell a region, and are in neither its scores nor mDSC: TC 1, ET 1" in printed
    assert next(line.split() for line in printed.splitlines() if " WT " in f" {line}" and "Dice" in line)[2] == "1.000"


def test_a_site_that_annotates_the_whole_tumour_alone_trains(tmp_path):
    """It learns, and it is scored by what it knows."""
    values, data = tmp_path / "own.yaml", tmp_path / "data"
    values.write_text(WHOLE.replace("5", "1").replace("9", "7") + "# 1 to 4 are drawn as 1\n")
    import nibabel

    for number in range(4):
        folder = data / f"case-{number}"
        write_tiny(folder, ("T1ce", "FLAIR"), number)
        label = nibabel.load(folder / "x_seg.nii.gz")
        classes = (np.asanyarray(label.dataobj) > 0).astype("uint8")
        nibabel.save(nibabel.Nifti1Image(classes, label.affine), folder / "x_seg.nii.gz")
    assert run("init", data, "--labels", values, "--train", "0.5", "--validation", "0.25") == 0
    of = settings()
    site = open_site_data("site-1", of, SiteSettings(data=data, cache=tmp_path / "cache"))
    network = build_network(of, site.modalities).start(0)
    optimizer = make_optimizer(network, of.training)
    batches, losses = TrainingBatches(site.train, of, ["a"], site.cache), []
    for number in range(6):
        report = EpochReport()
        train_epoch(network, optimizer, batches.epoch(number), report, precision="float32", abort=never)
        losses.append(report.means()["total"])
    assert losses[-1] < losses[0]
    scores = score_cases(network, site.validation, of, site.cache, distances=True, abort=never)
    assert list(scores["dice"]) == ["WT"] and scores["mdsc"] == scores["dice"]["WT"]


def test_an_edited_map_is_the_one_that_counts(tmp_path, capsys):
    data, values = tmp_path / "data", tmp_path / "own.yaml"
    write_case(data, "case")
    values.write_text("values: {0: background, 1: NCR/NET, 2: ED, 4: ET}\n")
    assert run("init", data, "--labels", values) == 0
    values.write_text("values: {0: background, 1: ED, 2: NCR/NET, 4: ET}\n")
    capsys.readouterr()
    assert run("check", data, "--labels", values) == 0
    assert "own.yaml: 0, 1 ED, 2 NCR/NET, 4 ET" in capsys.readouterr().out


def test_later_cases_are_read_as_the_earlier_ones(tmp_path):
    """Their values do not tell the convention, which the user has said before."""
    data = tmp_path / "data"
    write_case(data, "first", label=np.where(tumour() == 4, 3, tumour()).astype("uint8"))
    assert run("init", data, "--labels", "msd") == 0
    write_case(data, "second", label=np.where(tumour(kind=1) == 4, 0, tumour(kind=1)).astype("uint8"))
    assert run("init", data) == 0
    assert {case.convention for case in read_manifest(BRATS, data)[0]} == {"msd"}


def test_what_the_names_of_earlier_cases_tell_is_not_said_of_others(tmp_path):
    data = tmp_path / "data"
    write_case(data, "BraTS-GLI-00001-000", label=np.where(tumour() == 4, 3, tumour()).astype("uint8"))
    assert run("init", data) == 0
    write_case(data, "plain")
    assert run("init", data) == 0
    assert [case.convention for case in read_manifest(BRATS, data)[0]] == ["brats2023", "brats"]


def test_later_cases_of_doubtful_labels_are_asked_about(tmp_path, capsys):
    data = tmp_path / "data"
    values = np.where(tumour() == 4, 3, tumour()).astype("uint8")
    write_case(data, "plain", label=values)
    assert run("init", data, "--labels", "brats2023") == 0
    write_case(data, "BraTS-PED-00001-000", label=np.roll(values, 1, axis=0))
    assert run("init", data) == 2
    assert "children" in capsys.readouterr().err


def test_a_map_without_content(tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("# nothing yet\n")
    write_case(tmp_path / "data")
    assert run("check", tmp_path / "data", "--labels", tmp_path / "own.yaml") == 2
    assert f"{tmp_path / 'own.yaml'} is empty" in capsys.readouterr().err


def test_labels_of_one_value_may_be_of_several_classes(tmp_path, capsys):
    write_case(tmp_path / "data", label=(tumour() > 0).astype("uint8"))
    assert run("check", tmp_path / "data") == 0
    assert "if it stands for several classes together, describe the values in a file" in capsys.readouterr().out
