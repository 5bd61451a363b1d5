"""The list of what has left a site: whole, in order, and impossible to change without being noticed."""

from __future__ import annotations

import json
import multiprocessing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from fedmepd.errors import FedMEPDError
from fedmepd.federation.egress import START, EgressList, Item, find, read

NOW = datetime(2026, 5, 4, 3, 2, 1, 500_000, tzinfo=UTC)
ITEMS = [
    Item("updates", "decoder.classify.weight", [4, 8], "float16", 64, 0.25, 3),
    Item("losses", "losses", bytes=14, cases=3, value={"total": 1.5}),
]


def add(path: Path, number: int, items: list[Item] = ITEMS) -> str:
    made = EgressList(path, lambda: NOW)
    return made.add(to="hub", job="job-1", run="run-1", task="train", round_number=number, code="OK", items=items)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        add(tmp_path / "egress.jsonl", number)
    return tmp_path / "egress.jsonl"


def test_every_message_is_a_line(path: Path) -> None:
    found = read(path)
    assert found.fault == "" and [entry.number for entry in found.entries] == [1, 2, 3]
    first = found.entries[0]
    assert (first.to, first.job, first.run, first.task, first.round) == ("hub", "job-1", "run-1", "train", 1)
    assert first.time == "2026-05-04T03:02:01.500+00:00" and first.items == ITEMS
    assert found.head == found.entries[2].hash


def test_the_chain_by_hand(path: Path) -> None:
    previous = 64 * "0"
    for line in path.read_text().splitlines():
        content = json.loads(line)
        own = content.pop("hash")
        assert content["previous"] == previous
        assert own == sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        previous = own


def changed(lines: list[str], change: str) -> list[str]:
    second = json.loads(lines[1])
    if change == "value":
        second["items"][1]["value"] = {"total": 0.5}
    if change == "hash":
        second["hash"] = 64 * "a"
    if change == "new hash":
        # Whoever changes a line and its own hash does not fit the next line.
        second["to"] = "nobody"
        second.pop("hash")
        text = json.dumps(second, sort_keys=True, separators=(",", ":"))
        second["hash"] = sha256(text.encode()).hexdigest()
    edited = [lines[0], json.dumps(second), lines[2]]
    return {"removed": [lines[0], lines[2]], "swapped": [lines[0], lines[2], lines[1]], "first": lines[1:]}.get(
        change, edited
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [("value", 2), ("hash", 2), ("new hash", 3), ("removed", 2), ("swapped", 2), ("first", 1)],
)
def test_a_list_that_somebody_has_changed(path: Path, change: str, line: int) -> None:
    path.write_text("\n".join(changed(path.read_text().splitlines(), change)) + "\n")
    found = read(path)
    assert found.fault.startswith(f"line {line} was changed, or one before it was removed")
    assert len(found.entries) == line - 1


@pytest.mark.parametrize("text", ["junk", "[]", '{"number": 1}', "[" * 100_000, "\x00\xff"])
def test_a_line_that_is_none(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")
    found = read(path)
    assert found.fault.startswith("line 4 is none of this list") and len(found.entries) == 3


def test_lines_cut_off_at_the_end_are_noticed_by_whoever_has_noted_a_hash(path: Path) -> None:
    noted = read(path).head
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    found = read(path)
    assert found.fault == "" and not found.contains(noted) and found.contains(found.head)


def test_a_line_that_a_killed_process_left_half_written(path: Path) -> None:
    whole = path.read_text()
    path.write_text(whole + '{"number": 4, "time": "20')
    add(path, 4)
    found = read(path)
    assert found.fault == "" and len(found.entries) == 4 and path.read_text().startswith(whole)


def test_a_list_whose_last_line_is_none_is_not_continued(path: Path) -> None:
    with open(path, "a") as file:
        file.write("junk\n")
    before = path.read_bytes()
    with pytest.raises(FedMEPDError, match="its last line is none") as error:
        add(path, 4)
    assert path.read_bytes() == before and str(path) not in error.value.public


def test_lines_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    many = [Item("updates", f"weight.{number}", [number], "float16", 2 * number, 0.5, 3) for number in range(2000)]
    for number in (1, 2, 3):
        add(tmp_path / "egress.jsonl", number, many)
    assert (tmp_path / "egress.jsonl").stat().st_size > 3 * 2**17
    assert read(tmp_path / "egress.jsonl").fault == ""


def _add_many(path: Path) -> None:
    for number in range(20):
        add(path, number)


def test_jobs_at_the_same_time_share_a_list(tmp_path: Path) -> None:
    path = tmp_path / "egress.jsonl"
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_add_many, args=(path,)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    found = read(path)
    assert found.fault == "" and len(found.entries) == 60


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FedMEPDError, match="cannot write"):
        add(tmp_path / "file" / "egress.jsonl", 1)


def test_lists_are_found_from_where_people_stand(path: Path, tmp_path: Path) -> None:
    assert find(tmp_path) == find(path) == [path]
    run = tmp_path / "simulate_job"
    run.mkdir()
    # A kit's folder of a job, the folder of kits, a workspace of `fedmepd poc`.
    assert find(run) == [path] and path in find(tmp_path.parent)
    poc = tmp_path / "w/poc/fedmepd_poc/prod_00/site-2"
    poc.mkdir(parents=True)
    add(poc / "egress.jsonl", 1)
    assert find(tmp_path / "w/poc") == find(tmp_path / "w/poc/fedmepd_poc/prod_00") == [poc / "egress.jsonl"]
    (tmp_path / "empty/below").mkdir(parents=True)
    with pytest.raises(FedMEPDError, match=r"no egress\.jsonl below .*a site's kit"):
        find(tmp_path / "empty/below")


def test_an_empty_list_has_no_head(tmp_path: Path) -> None:
    (tmp_path / "egress.jsonl").write_text("")
    assert read(tmp_path / "egress.jsonl").head == START
