from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmepd.errors import CheckpointError, DataError, FedMEPDError
from fedmepd.storage import (
    copy_file,
    has_file,
    load_tensors,
    read_json,
    remove_leftovers,
    save_tensors,
    write_atomically,
    write_json,
    write_text,
)

LIMIT = 2**20


@contextlib.contextmanager
def disk_that_takes_one_mebibyte_a_file() -> Iterator[None]:
    """The kernel refuses what goes beyond it, in the middle of a write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_makes_its_folder_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "run" / "state" / "round.txt"
    write_text(path, "3 Äpfel")
    write_text(path, "4")
    assert path.read_bytes() == b"4"
    assert [entry.name for entry in path.parent.iterdir()] == ["round.txt"]


def test_others_may_read_what_the_umask_allows(tmp_path: Path) -> None:
    write_text(tmp_path / "written", "")
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE((tmp_path / "written").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    seen = []

    def write(file) -> None:
        file.write(b"new")
        file.flush()
        seen.append(path.read_bytes())

    write_atomically(path, write)
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    "save",
    [
        lambda path: write_text(path, "x" * 2 * LIMIT),
        lambda path: write_json(path, ["x" * 2 * LIMIT]),
        lambda path: save_tensors(path, {"weight": torch.zeros(2 * LIMIT)}),
    ],
    ids=["text", "json", "tensors"],
)
def test_a_full_disk_leaves_the_old_file(save, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(b"old")
    with disk_that_takes_one_mebibyte_a_file(), pytest.raises(FedMEPDError, match="too large.*free space") as caught:
        save(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]


def test_a_disk_found_full_when_flushing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filesystems that allocate late report it only then."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "state"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FedMEPDError, match="No space left on device"):
        write_text(path, "new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FedMEPDError, match="file/state"):
        write_text(tmp_path / "file" / "state", "new")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError], ids=lambda error: error.__name__)
def test_an_interrupted_write_leaves_nothing_behind(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")

    def write(file) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"mean": {"mdsc": 0.5}, "name": "Köln"})
    assert json.loads(path.read_text()) == {"mean": {"mdsc": 0.5}, "name": "Köln"}
    with pytest.raises(ValueError):
        write_json(path, {"mean": float("nan")})
    assert json.loads(path.read_text())["mean"] == {"mdsc": 0.5}


def test_tensors_come_back_with_every_bit(tmp_path: Path) -> None:
    content = {
        "weights": {
            "a": torch.tensor([1 / 3, -0.0, float("inf")]),
            "patience": torch.tensor([3, 0], dtype=torch.uint8),
        },
        "round": 7,
        "modalities": ["FLAIR", "T2"],
        "best": None,
    }
    save_tensors(tmp_path / "state.pt", content)
    loaded = load_tensors(tmp_path / "state.pt")
    for name, tensor in content["weights"].items():
        assert loaded["weights"][name].dtype == tensor.dtype
        assert loaded["weights"][name].numpy().tobytes() == tensor.numpy().tobytes()
    assert {key: loaded[key] for key in ("round", "modalities", "best")} == {
        "round": 7,
        "modalities": ["FLAIR", "T2"],
        "best": None,
    }


def damage(path: Path, how: str) -> None:
    save_tensors(path, {"weight": torch.zeros(1000)})
    whole = path.read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"not a checkpoint", "json": b'{"a": 1}'}
    path.write_bytes(content[how])


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "json"])
def test_a_damaged_file(how: str, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    damage(path, how)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        load_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere.pt does not exist"):
        load_tensors(tmp_path / "nowhere.pt")


def test_another_kind_of_content(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="list.pt holds a list"):
        load_tensors(tmp_path / "list.pt")


class Code:
    ran = False

    def __reduce__(self):
        return setattr, (Code, "ran", True)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Code()}, tmp_path / "code.pt")
    with pytest.raises(CheckpointError, match=r"code\.pt"):
        load_tensors(tmp_path / "code.pt")
    assert not Code.ran


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    """A process that is killed while it writes leaves its temporary file, and nothing else."""
    script = (
        "import os, signal, sys; from pathlib import Path; from fedmepd.storage import write_atomically\n"
        "def write(file):\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path(sys.argv[1]), write)\n"
    )
    (tmp_path / "state").write_text("old")
    (tmp_path / ".hidden").write_text("mine")
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "state")])
    assert run.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"state": "old", ".hidden": "mine"}
    remove_leftovers(tmp_path / "no such folder")


def test_read_json_reads_what_write_json_wrote(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"mean": [0.5], "name": "Köln"})
    assert read_json(tmp_path / "a.json", "a test") == {"mean": [0.5], "name": "Köln"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "No such file"),
        (b"{", "as JSON"),
        (b"[" * 100_000, "as JSON"),
        (b'{"a": "\xff"}', "as JSON (it is no UTF-8 text: save it as UTF-8)"),
        (b"\xef\xbb\xbf{}", "as JSON (it begins with a byte order mark: save it as UTF-8 without one)"),
        (b"\xff\xfe{\x00}\x00", "as JSON (it is no UTF-8 text"),
        (b"[1]", "holds an array"),
        (b"null", "holds null"),
        (b"2.5", "holds a number"),
    ],
)
def test_read_json_names_file_and_way_out(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_json(path, "a list of cases", DataError, hint="; write it again", public="the list cannot be used")
    text = str(caught.value)
    assert str(path) in text and expected in text and text.endswith("expected a list of cases; write it again")
    assert caught.value.public == "the list cannot be used"


def test_read_json_of_an_array(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", [1, 2])
    assert read_json(tmp_path / "a.json", "cases", kinds=(dict, list)) == [1, 2]


def test_a_file_that_may_be_missing(tmp_path: Path) -> None:
    """What stands in its place is no missing file: whoever takes it for one would use defaults."""
    assert not has_file(tmp_path / "none", DataError, "; restore it")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert has_file(tmp_path / "file", DataError, "; restore it") and has_file(tmp_path / "link", DataError, "")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    told = {"folder": "is a folder", "nowhere": "is a link that leads nowhere", "pipe": "is no plain file"}
    for name, what in told.items():
        with pytest.raises(DataError) as caught:
            has_file(tmp_path / name, DataError, "; restore it")
        assert str(caught.value) == f"{tmp_path / name} {what}: expected a file; restore it"


def test_read_json_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FedMEPDError, match="Is a directory"):
        read_json(tmp_path, "a test")


def test_state_that_nobody_could_read_again_does_not_replace_the_old_one(tmp_path):
    """torch writes any object; what is read holds tensors and plain values."""
    path = tmp_path / "state.pt"
    save_tensors(path, {"round": 1, "weights": torch.ones(2)})
    for value in (datetime(2026, 1, 1), np.float64(0.5), {"mdsc": [np.float32(1)]}, b"", 2**4000, {np.int64(1): 2}):
        with pytest.raises(CheckpointError, match=r"state\.pt was not written"):
            save_tensors(path, {"round": 2, "value": value})
        assert load_tensors(path)["round"] == 1 and list(tmp_path.iterdir()) == [path]


def test_a_copy_is_made_anew_only_where_the_file_has_changed(tmp_path):
    source, copy = tmp_path / "model.pt", tmp_path / "new" / "model.pt"
    source.write_bytes(b"first")
    copy_file(source, copy)
    assert copy.read_bytes() == b"first" and os.stat(copy).st_mtime_ns == os.stat(source).st_mtime_ns
    before = os.stat(copy).st_ino
    copy_file(source, copy)
    assert os.stat(copy).st_ino == before
    source.write_bytes(b"again")
    os.utime(source, ns=(1, 1))
    copy_file(source, copy)
    assert copy.read_bytes() == b"again"
    assert [path.name for path in copy.parent.iterdir()] == ["model.pt"]


def test_every_plain_value_is_read_again(tmp_path):
    path = tmp_path / "state.pt"
    values = [
        {1: 2, ("a", 1): [()]},
        {"a", 1},
        set(),
        "\udc80\u00e9",
        "x" * 70_000,
        -(2**1999),
        1e300,
        True,
        None,
        (1, [2.5]),
    ]
    weights = torch.nn.Linear(2, 2).state_dict()
    save_tensors(path, {"values": values, "weights": weights, "one": torch.nn.Parameter(torch.arange(4.0)[1:3])})
    read = load_tensors(path)
    assert read["values"] == values and list(map(type, read["values"])) == list(map(type, values))
    assert read["weights"].keys() == weights.keys() and torch.equal(read["weights"]["weight"], weights["weight"])
    assert torch.equal(read["one"], torch.tensor([1.0, 2.0]))
