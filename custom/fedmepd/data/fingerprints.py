"""SHA-256 of files, computed once for every version of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fedmepd.errors import FedMEPDError
from fedmepd.storage import read_json, write_json

# Reading and hashing release Python's global lock.
_THREADS = 4


def fingerprints(files: Iterable[Path], memory: Path | None) -> dict[Path, str]:
    """SHA-256 of the files' contents.

    A file is read only if its size, its time, or the time at which it was last replaced, renamed or changed in its
    rights differs from the one recorded in ``memory``. The last of these is kept by the file system: a program that
    copies a file with its times cannot set it.

    Args:
        files: the files.
        memory: a JSON file that keeps the results; created if it is missing or damaged. None: do not keep them.

    Raises:
        OSError: a file cannot be read.
        FedMEPDError: ``memory`` cannot be written.
    """
    known = {} if memory is None else _recall(memory)
    versions = {file: _version(file) for file in files}
    unknown = [file for file, version in versions.items() if version not in known]
    if unknown:
        if memory is not None:
            memory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ThreadPoolExecutor(_THREADS) as pool:
            known |= {versions[file]: digest for file, digest in zip(unknown, pool.map(_digest, unknown), strict=True)}
        if memory is not None:
            write_json(memory, known)
    return {file: known[version] for file, version in versions.items()}


def _version(file: Path) -> str:
    status = file.stat()
    return f"{file}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}"


def _recall(memory: Path) -> dict[str, str]:
    try:
        return read_json(memory, "fingerprints of files")
    except FedMEPDError:
        return {}


def _digest(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
