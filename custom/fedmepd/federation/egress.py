"""The list of all that has left a site: one line for each message, chained by hashes, so that no line can be changed.

Every line holds the hash of the line before and its own. Whoever has noted a hash can tell later whether everything up
to that line is as it was then. Lines that nobody has noted a later hash of can be cut off at the end without a trace.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fedmepd.closest import like_path
from fedmepd.errors import FedMEPDError, explain
from fedmepd.storage import cannot_write, locked

FILE_NAME = "egress.jsonl"
# Before the first line.
START = 64 * "0"


@dataclass(frozen=True)
class Item:
    """One thing in a message.

    Attributes:
        kind: as in :class:`fedmepd.disclosure.Allow`, or ``updates``, ``extras``, ``profile``, ``counts``, ``reason``,
            ``message``.
        name: of the tensor or value.
        shape: of a tensor; empty for a plain value.
        format: of a tensor's numbers, or ``json``.
        bytes: of its content.
        norm: of a tensor, as its receiver reads it; None for a plain value.
        cases: how many cases are behind it; None where none are.
        value: a short plain value itself.
    """

    kind: str
    name: str
    shape: list[int] = field(default_factory=list)
    format: str = "json"
    bytes: int = 0
    norm: float | None = None
    cases: int | None = None
    value: Any = None


class Entry(BaseModel):
    """A line of the list: a message with its items, when it was handed to FLARE for sending, and for whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    time: str
    to: str
    job: str
    run: str
    task: str
    round: int | None
    code: str
    items: list[Item]
    previous: str
    hash: str


def _hash(content: dict[str, Any]) -> str:
    unsigned = {key: value for key, value in content.items() if key != "hash"}
    return hashlib.sha256(json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class EgressList:
    """Adds to the list of a site. Jobs that run at the same time share it.

    Args:
        path: of the file.
        now: tells the time.
    """

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self.path = Path(path)
        self._now = now
        self._lock = threading.Lock()

    def add(
        self, *, to: str, job: str, run: str, task: str, round_number: int | None, code: str, items: Sequence[Item]
    ) -> str:
        """Adds a message before it leaves; it is on the disk when this returns. Returns the line's hash.

        Args:
            to: who receives it.
            job, run: identities.
            task: of the server that it answers.
            round_number: that it is about.
            code: FLARE's word for how the task went.
            items: all that is in it.

        Raises:
            FedMEPDError: the file cannot be written, or its last line is none.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_name(f".{self.path.name}.lock")
            with self._lock, locked(beside, None), open(self.path, "a+b") as file:
                number, previous = self._last(file)
                content = {
                    "number": number + 1,
                    "time": self._now().isoformat(timespec="milliseconds"),
                    "to": to,
                    "job": job,
                    "run": run,
                    "task": task,
                    "round": round_number,
                    "code": code,
                    "items": [asdict(item) for item in items],
                    "previous": previous,
                }
                content["hash"] = _hash(content)
                file.write(json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
                return content["hash"]
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _last(self, file) -> tuple[int, str]:
        """Returns number and hash of the last whole line. What a killed process left half written has never left."""
        end = file.seek(0, os.SEEK_END)
        if not end:
            return 0, START
        size = 1 << 16
        while True:
            start = file.seek(max(0, end - size))
            tail = file.read(end - start)
            if tail.rstrip(b"\n").count(b"\n") > 1 or start == 0:
                break
            size *= 4
        if not tail.endswith(b"\n"):
            file.truncate(start + tail.rfind(b"\n") + 1)
            return self._last(file)
        try:
            last = json.loads(tail[:-1].rpartition(b"\n")[2])
            return int(last["number"]), str(last["hash"])
        except (ValueError, KeyError, TypeError) as error:
            raise FedMEPDError(
                f"{self.path}: its last line is none of the list of what has left the site: move the file away",
                public="the list of what has left the site cannot be continued",
            ) from error


@dataclass
class Egress:
    """A list that has been read and checked.

    Attributes:
        path: of its file.
        entries: up to the first line that is not right.
        fault: what is wrong with that line; empty if all are right.
    """

    path: Path
    entries: list[Entry] = field(default_factory=list)
    fault: str = ""

    @property
    def head(self) -> str:
        """The hash of the last right line, to be noted elsewhere."""
        return self.entries[-1].hash if self.entries else START

    def contains(self, known: str) -> bool:
        """Whether a hash that somebody has noted is that of a line."""
        return any(entry.hash == known for entry in self.entries)

    def of_job(self, job: str) -> Egress:
        """Returns the list with the entries of one job or run alone."""
        return Egress(self.path, [entry for entry in self.entries if job in (entry.job, entry.run)], self.fault)


def read(path: Path) -> Egress:
    """Reads a list and checks its chain.

    Raises:
        FedMEPDError: the file cannot be read.
    """
    found, previous = Egress(Path(path)), START
    with contextlib.closing(_lines(found.path)) as lines:
        for place, line in enumerate(lines, 1):
            try:
                content = json.loads(line)
                entry = Entry.model_validate(content)
            except (ValueError, RecursionError) as error:
                why = explain(error, "it") if isinstance(error, ValidationError) else "it is not JSON"
                found.fault = f"line {place} is none of this list: {why}"
                return found
            if (entry.number, entry.previous, entry.hash) != (place, previous, _hash(content)):
                found.fault = f"line {place} was changed, or one before it was removed"
                return found
            found.entries.append(entry)
            previous = entry.hash
    return found


def _lines(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from file
    except OSError as error:
        raise FedMEPDError(f"{path} cannot be read: {error.strerror}") from error


# Where a list lies below a kit, a site's folder, a workspace of the simulator or of `fedmepd poc`.
_PLACES = (FILE_NAME, *(f"{below}/{FILE_NAME}" for below in ("*", "*/*", "*/prod_*/*", "*/*/prod_*/*")))


def find(folder: Path) -> list[Path]:
    """Returns the lists of all sites below a folder.

    Raises:
        FedMEPDError: there is none.
    """
    folder = Path(folder)
    found = [folder] if folder.is_file() else sorted({path for place in _PLACES for path in folder.glob(place)})
    # A job's run folder lies in the folder of its site.
    if not found and (folder.parent / FILE_NAME).is_file():
        found = [folder.parent / FILE_NAME]
    if not found:
        raise FedMEPDError(
            f"no {FILE_NAME} below {folder}: expected a site's kit, its folder in a workspace, or a workspace; a site "
            f"begins its list with the first message that leaves it{like_path(folder)}"
        )
    return found
