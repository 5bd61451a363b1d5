import json
from dataclasses import replace

import pytest

from fedmepd.data.cases import Case
from fedmepd.data.layouts import find_dataset
from fedmepd.data.manifest import FILE_NAME, make_manifest, pinned_content, read_manifest, write_manifest
from fedmepd.errors import DataError
from fedmepd.tasks.brats import BRATS

HASH = "0" * 64


def cases(folder):
    scan = folder / "p_1" / "scan.nii.gz"
    return [
        Case("p_2", {"T2": folder / "p_2" / "t2.nii"}, None, patient="p", task=BRATS),
        Case(
            "p_1",
            {"FLAIR": scan, "T1": scan},
            folder / "p_1" / "seg.nii",
            {"FLAIR": 0, "T1": 3},
            patient="p",
            institution="CBICA",
            convention="msd",
            task=BRATS,
        ),
    ]


def write(folder):
    made = cases(folder)
    digests = {path: f"{number:064x}" for number, path in enumerate(path for case in made for path in case.files)}
    return write_manifest(folder, make_manifest(BRATS, folder, made, {"p_1": "test"}, digests)), digests


def test_what_is_written_is_read(tmp_path):
    written, digests = write(tmp_path)
    assert written and pinned_content(tmp_path) == digests
    found, parts = read_manifest(BRATS, tmp_path)
    assert found == cases(tmp_path)[::-1] and parts == {"p_1": "test", "p_2": None}
    dataset = find_dataset(BRATS, tmp_path)
    assert (dataset.cases, dataset.parts) == (found, parts)
    assert find_dataset(BRATS, tmp_path, manifest=False).parts is None


def test_the_same_again_touches_nothing(tmp_path):
    write(tmp_path)
    before = (tmp_path / FILE_NAME).stat().st_mtime_ns
    assert write(tmp_path)[0] is False
    assert (tmp_path / FILE_NAME).stat().st_mtime_ns == before


def entry(**changes):
    image = {"file": "a/t1.nii", "sha256": HASH}
    return {
        "name": "a",
        "patient": "a",
        "labels": "brats",
        "part": "train",
        "images": {"T1": image},
        "label": {"file": "a/seg.nii", "sha256": HASH},
    } | changes


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "invalid JSON"),
        ({"format": 2, "cases": []}, "format"),
        ({"cases": [entry(images={})]}, "images"),
        ({"cases": [entry(images={"CT": {"file": "a", "sha256": HASH}})]}, "unknown modality 'CT'"),
        ({"cases": [entry(images={"T1": {"file": "../t1.nii", "sha256": HASH}})]}, "without .."),
        ({"cases": [entry(images={"T1": {"file": "/etc/passwd", "sha256": HASH}})]}, "below the manifest's folder"),
        ({"cases": [entry(images={"T1": {"file": "a", "sha256": "x"}})]}, "sha256"),
        ({"cases": [entry(labels="other")]}, "unknown labels 'other'"),
        ({"cases": [entry(labels=None)]}, "labels is missing"),
        ({"cases": [entry(label=None)]}, "expected a part for a case with a label, and null for one without"),
        ({"cases": [entry(part=None)]}, "expected a part for a case with a label, and null for one without"),
        ({"cases": [entry(fusion="yes")]}, "fusion"),
        ({"cases": [entry(fusion=True)]}, "case a is for fusion training, but has no FLAIR, T1ce, T2"),
        ({"cases": [entry(), entry()]}, "case a stands there twice"),
        ({"cases": [entry(name="a\x1b[31m")]}, "name = 'a\\x1b[31m': expected a name without control characters"),
        ({"cases": [entry(patient="a\nb")]}, "patient = 'a\\nb': expected a name without control characters"),
        ({"cases": [entry(institution="\u202ea")]}, "institution = '\\u202ea': expected a name without"),
        ({"cases": [entry(labels="a\x07")]}, "labels = 'a\\x07': expected a name without"),
        ({"cases": [], "task": "brats\x1b"}, "task = 'brats\\x1b': expected a name without"),
        ({"cases": [], "patterns": ["T1=*\x1b"]}, "patterns.0 = 'T1=*\\x1b': expected a name without"),
        ({"cases": [], "label_values": {"a\x1b": {"source": "a", "classes": {}}}}, "expected a name without"),
        ({"cases": [entry(images={"T1": {"file": "../\x1b", "sha256": HASH}})]}, "file = '../\\x1b'"),
        ({"cases": [entry(), entry(name="b", part="test")]}, "no patient may both train and test"),
    ],
)
def test_manifests_that_make_no_sense(tmp_path, content, expected):
    (tmp_path / FILE_NAME).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError) as error:
        read_manifest(BRATS, tmp_path)
    assert expected in str(error.value) and FILE_NAME in str(error.value) and str(error.value).isprintable()
    assert error.value.public == "the manifest of the site's data cannot be used"


def test_cases_for_fusion_training(tmp_path):
    """The mark is written where it is true, so that other manifests stay as they were."""
    write(tmp_path)
    assert "fusion" not in (tmp_path / FILE_NAME).read_text()
    made = [replace(case, for_fusion=case.name == "p_2", patient=case.name) for case in cases(tmp_path)]
    digests = dict.fromkeys((path for case in made for path in case.files), HASH)
    write_manifest(tmp_path, make_manifest(BRATS, tmp_path, made, {"p_1": "test"}, digests))
    assert (tmp_path / FILE_NAME).read_text().count('"fusion": true') == 1
    assert [case.for_fusion for case in read_manifest(BRATS, tmp_path)[0]] == [False, True]
