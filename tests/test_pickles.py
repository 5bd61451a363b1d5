"""Files that would end the process which reads them, or take any time or memory."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmepd.errors import CheckpointError
from fedmepd.networks.published import import_published
from fedmepd.pickles import Refused, _of_pickle, require_plain
from fedmepd.storage import load_tensors
from fedmepd.training.checkpoints import load_model

# More than the stack of a process holds.
DEEP = 1_000_000
# A dictionary with one key, the tuple of a tuple of ... an empty one.
TUPLES = b"\x80\x02}" + b")" + b"\x85" * DEEP + b"K\x01s."
# The same, through what is remembered: every tuple has the one before, and a number.
REMEMBERED = b"\x80\x02})" + b"q\x00h\x00K\x01\x86" * DEEP + b"K\x01s."
# Pairs, from a mark on.
MARKED = b"\x80\x02}" + b"(" * DEEP + b"t" * DEEP + b"K\x01s."


def write_new(path: Path, content: bytes) -> Path:
    """A file of today's torch with another content."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer)
    with zipfile.ZipFile(buffer) as parts, zipfile.ZipFile(path, "w") as out:
        for part in parts.infolist():
            out.writestr(part, content if part.filename.endswith("data.pkl") else parts.read(part))
    return path


def write_old(path: Path, content: bytes) -> Path:
    """A file as torch before 1.6 wrote it, with another content: the fourth of its pickles."""
    buffer = io.BytesIO()
    torch.save({}, buffer, _use_new_zipfile_serialization=False)
    parts = buffer.getvalue().split(b".\x80\x02")
    parts[3] = content[2:-1]
    path.write_bytes(b".\x80\x02".join(parts))
    return path


@pytest.mark.parametrize("write", [write_new, write_old])
@pytest.mark.parametrize("content", [TUPLES, REMEMBERED, MARKED], ids=["tuples", "remembered", "marked"])
def test_a_stranger_ends_no_process(write, content: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "model.pt", content)
    with pytest.raises(Refused, match="nested"):
        require_plain(path)
    for read in (load_model, lambda file: load_tensors(file, from_outside=True)):
        with pytest.raises(CheckpointError, match="nested more than 1000 deep"):
            read(path)


# A tuple with itself twice, sixty times over: 2^60 empty tuples.
UNFOLDED = b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"K\x01s."


def test_a_key_that_takes_for_ever_to_look_up(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="nested"):
        require_plain(write_new(tmp_path / "a.pt", UNFOLDED))


@pytest.mark.parametrize("name", ["a/data.pkl", "a/DATA.PKL"])
@pytest.mark.parametrize("damaged", ["a/xdata.pkl", "a/zdata.pkl"])
def test_a_damaged_part_hides_no_other_one(name: str, damaged: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as out:
        for part in sorted([name, damaged]):
            out.writestr(part, TUPLES if part == name else b"\xff" * 2000)
    for read in (load_model, lambda file: load_tensors(file, from_outside=True)):
        with pytest.raises(CheckpointError, match="nested more than 1000 deep|damaged"):
            read(tmp_path / "a.pt")


def called(name: bytes, arguments: bytes) -> bytes:
    """A pickle of {1: what a name from a module makes of arguments}."""
    return b"\x80\x02}K\x01c" + name + b"\n" + arguments + b"Rs."


@pytest.mark.parametrize("write", [write_new, write_old])
@pytest.mark.parametrize(
    "name", ["builtins bytearray", "__builtin__ bytearray", "torch FloatTensor", "torch.storage UntypedStorage"]
)
def test_a_stranger_takes_no_memory(write, name: str, tmp_path: Path) -> None:
    """A file of some hundred bytes makes one and a half gigabytes."""
    content = called(name.replace(" ", "\n").encode(), b"J" + struct.pack("<i", 1_500_000_000) + b"\x85")
    path = write(tmp_path / "model.pt", content)
    for read in (load_model, lambda file: load_tensors(file, from_outside=True), import_published):
        with pytest.raises(CheckpointError, match=f"it makes {name.replace(' ', '.')}, which none has") as caught:
            read(path)
        assert "whom you trust" in str(caught.value)


SLOW = "".join(chr(0x4E00 + number) for number in range(20_000))


def encoded(text: str, encoding: str) -> bytes:
    """A pickle of {1: the bytes of a text}."""
    texts = (b"X" + struct.pack("<I", len(each.encode())) + each.encode() for each in (text, encoding))
    return called(b"_codecs\nencode", b"".join(texts) + b"\x86")


@pytest.mark.parametrize("write", [write_new, write_old])
@pytest.mark.parametrize("encoding", ["punycode", "Punycode", "idna"])
def test_a_stranger_takes_no_time(write, encoding: str, tmp_path: Path) -> None:
    """A file of 60 kB takes two minutes, one of a megabyte hours."""
    path = write(tmp_path / "model.pt", encoded(SLOW, encoding))
    for read in (load_model, lambda file: load_tensors(file, from_outside=True)):
        with pytest.raises(CheckpointError, match="it makes _codecs.encode, which none has"):
            read(path)
    with pytest.raises(CheckpointError, match=f"the text {encoding}, an encoding that none has"):
        import_published(path)
    require_plain(write(tmp_path / "latin.pt", encoded("abc", "latin1")), arrays=True)


def test_a_name_that_is_no_argument(tmp_path: Path) -> None:
    content = b"\x80\x04}K\x01\x8c\x08builtins\x8c\x09bytearray\x93J" + struct.pack("<i", 1_500_000_000) + b"\x85Rs."
    with pytest.raises(Refused, match="something by STACK_GLOBAL"):
        require_plain(write_new(tmp_path / "a.pt", content))


def depth_of(value: Any) -> int:
    """How deep a value is, as anybody would count."""
    if isinstance(value, dict):
        return 1 + max((max(depth_of(key), depth_of(entry)) for key, entry in value.items()), default=-1)
    if isinstance(value, list | tuple):
        return 1 + max(map(depth_of, value), default=-1)
    return 0


def anything(of: random.Random, most: int) -> Any:
    kind = of.choice([dict, list, tuple, int, str] if most else [int, str])
    if kind in (int, str):
        return kind(of.randrange(10**6))
    values = [anything(of, most - 1) for _ in range(of.randrange(5))]
    return kind(values) if kind is not dict else {of.randrange(100): value for value in values}


@pytest.mark.parametrize("seed", range(20))
def test_depths_of_plain_values(seed: int) -> None:
    value = {"content": anything(random.Random(seed), 6), "many": list(range(3000)), "texts": ["a"] * 300}
    content = pickle.dumps(value, protocol=2)
    assert max(depth for _, _, depth, _ in _of_pickle(io.BytesIO(content))) == depth_of(value)


@pytest.mark.parametrize("old", [False, True])
def test_what_torch_writes_is_read(old: bool, tmp_path: Path) -> None:
    network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(500)))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
    read = load_tensors(tmp_path / "a.pt", from_outside=True)
    assert torch.equal(read["network"]["499.weight"], network[499].weight)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02tttt.", b"\x80\x02s.", b"\x80\x02h\x07.", b"("])
def test_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_tensors(tmp_path / "a.pt", from_outside=True)
