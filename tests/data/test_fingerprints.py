import hashlib
import os

import pytest

from fedmepd.data import fingerprints as module
from fedmepd.data.fingerprints import fingerprints


@pytest.fixture
def files(tmp_path):
    made = [tmp_path / name for name in "ab"]
    for file in made:
        file.write_bytes(file.name.encode() * 100_000)
    return made


@pytest.fixture
def read(monkeypatch):
    """Names of the files that are read."""
    names, digest = [], module._digest
    monkeypatch.setattr(module, "_digest", lambda file: names.append(file.name) or digest(file))
    return names


def test_digests_are_those_of_the_contents(files, tmp_path):
    expected = {file: hashlib.sha256(file.name.encode() * 100_000).hexdigest() for file in files}
    assert fingerprints(files, tmp_path / "memory.json") == expected


def test_files_are_read_again_only_when_they_changed(files, tmp_path, read):
    memory = tmp_path / "memory.json"
    first = fingerprints(files, memory)
    assert sorted(read) == ["a", "b"]
    assert fingerprints(files, memory) == first and len(read) == 2
    os.utime(files[0], (1, 1))
    assert fingerprints(files, memory) == first and read[2:] == ["a"]
    files[1].write_bytes(b"something else")
    assert fingerprints(files, memory)[files[1]] == hashlib.sha256(b"something else").hexdigest() and read[3:] == ["b"]


@pytest.mark.parametrize("content", ["", "[]", '{"half', "\x00"])
def test_damaged_memory_is_made_anew(files, tmp_path, content, read):
    memory = tmp_path / "memory.json"
    memory.write_text(content)
    first = fingerprints(files, memory)
    assert fingerprints(files, memory) == first and len(read) == 2


def test_missing_file(files, tmp_path):
    files[0].unlink()
    with pytest.raises(FileNotFoundError):
        fingerprints(files, tmp_path / "memory.json")
