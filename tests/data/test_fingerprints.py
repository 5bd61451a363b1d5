import hashlib
import os

import pytest

from fedmepd.data.fingerprints import fingerprints


@pytest.fixture
def files(tmp_path):
    made = [tmp_path / name for name in "ab"]
    for file in made:
        file.write_bytes(file.name.encode() * 100_000)
    return made


def digest(text: str) -> str:
    return hashlib.sha256(text.encode() * 100_000).hexdigest()


def test_digests_are_those_of_the_contents(files, tmp_path):
    expected = {file: digest(file.name) for file in files}
    assert fingerprints(files, tmp_path / "memory.json") == expected


def test_files_are_read_again_only_when_they_changed(files, tmp_path):
    memory = tmp_path / "memory.json"
    first, second = files
    fingerprints(files, memory)
    memory.write_text(memory.read_text().replace(digest("a"), "remembered"))
    assert fingerprints(files, memory) == {first: "remembered", second: digest("b")}
    os.utime(first, (1, 1))
    assert fingerprints(files, memory) == {first: digest("a"), second: digest("b")}
    second.write_bytes(b"something else")
    assert fingerprints(files, memory)[second] == hashlib.sha256(b"something else").hexdigest()


def test_a_file_that_was_replaced_by_one_of_the_same_size_and_time(files, tmp_path):
    memory = tmp_path / "memory.json"
    first = files[0]
    fingerprints(files, memory)
    stat = first.stat()
    first.write_bytes(b"c" * 100_000)
    os.utime(first, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprints(files, memory)[first] == digest("c")


@pytest.mark.parametrize("content", ["", "[]", '{"half', "\x00"])
def test_damaged_memory_is_made_anew(files, tmp_path, content):
    memory = tmp_path / "memory.json"
    memory.write_text(content)
    first = fingerprints(files, memory)
    memory.write_text(memory.read_text().replace(digest("a"), "remembered"))
    assert fingerprints(files, memory) == first | {files[0]: "remembered"}


def test_missing_file(files, tmp_path):
    files[0].unlink()
    with pytest.raises(FileNotFoundError):
        fingerprints(files, tmp_path / "memory.json")
