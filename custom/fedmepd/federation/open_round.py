"""The round that is open: what was sent, what came back, who was refused and why."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedmepd.errors import UpdateRefused
from fedmepd.federation.checking import check_update
from fedmepd.federation.exchange import SiteProfile, Update
from fedmepd.federation.norm_bound import NormBound, Size, size_of
from fedmepd.federation.reports import TrainReport, check_figures, check_report, check_trained_on, check_validated
from fedmepd.methods.method import AtServer, Tensors
from fedmepd.methods.parts.selection import EXTRA, parts
from fedmepd.storage import cannot_write, load_tensors, remove_leftovers, save_tensors
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

_SUFFIX = ".npy"


class TensorStore:
    """Tensors on disk: of a site for the time of a round, or under a name and a round for as long as they are needed.

    What is there for a round is not flushed to disk: a server that stops in between starts the round anew.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path):
        self._folder = Path(folder)

    def save(self, site: str, tensors: Tensors) -> None:
        """Keeps a site's tensors, in place of those that are there.

        Raises:
            FedMEPDError: they cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(self._file(site), "wb") as file:
                arrays = {name: value.contiguous().numpy() for name, value in tensors.items()}
                # One line about all of them: to read an array's own takes longer than the array.
                about = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
                file.write(json.dumps(about).encode() + b"\n")
                for array in arrays.values():
                    file.write(array.data)
        except OSError as error:
            raise cannot_write(self._file(site), error) from error

    def load(self, site: str) -> Tensors:
        """Takes a site's tensors back."""
        with open(self._file(site), "rb") as file:
            tensors = {
                name: torch.from_numpy(np.fromfile(file, kind, math.prod(shape)).reshape(shape))
                for name, kind, shape in json.loads(file.readline())
            }
        self._file(site).unlink()
        return tensors

    def clear(self) -> None:
        """Forgets what nobody has taken back."""
        self.begin_spool()
        for path in self._folder.glob(f"*{_SUFFIX}"):
            path.unlink(missing_ok=True)

    def begin_spool(self) -> None:
        """Forgets all values that :meth:`spool` has taken."""
        for path in self._spool_file("").parent.glob(f"*{_SUFFIX}"):
            path.unlink(missing_ok=True)

    def spool(self, site: str, values: torch.Tensor) -> int:
        """Adds values, float32, to those that are there of a site; returns the place of the first.

        Raises:
            FedMEPDError: they cannot be written.
        """
        path = self._spool_file(site)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab") as file:
                start = file.tell()
                file.write(values.to(torch.float32).contiguous().numpy().data)
        except OSError as error:
            raise cannot_write(path, error) from error
        return start // 4

    def spooled(self, site: str, start: int, count: int) -> torch.Tensor:
        """Returns as many values of a site from a place on."""
        return torch.from_numpy(np.fromfile(self._spool_file(site), np.float32, count, offset=4 * start))

    def _spool_file(self, site: str) -> Path:
        return self._folder / "spool" / f"{site}{_SUFFIX}"

    def keep(self, name: str, round_number: int, tensors: Tensors) -> None:
        """Keeps tensors of a round until :meth:`forget_others`. A new object on the same folder still has them.

        Raises:
            FedMEPDError: they cannot be written.
        """
        save_tensors(self._kept_file(name, round_number), tensors)

    def kept(self, name: str, round_number: int) -> Tensors:
        """Returns what :meth:`keep` has kept.

        Raises:
            CheckpointError: it cannot be read.
        """
        return load_tensors(self._kept_file(name, round_number))

    def forget_others(self, needed: Collection[tuple[str, int]]) -> None:
        """Forgets all that is kept but what is needed, by name and round."""
        files = {self._kept_file(name, round_number) for name, round_number in needed}
        remove_leftovers(self._folder / "kept")
        for path in (self._folder / "kept").glob("*.pt"):
            if path not in files:
                path.unlink(missing_ok=True)

    def _file(self, site: str) -> Path:
        return self._folder / f"{site}{_SUFFIX}"

    def _kept_file(self, name: str, round_number: int) -> Path:
        return self._folder / "kept" / f"{name}.{round_number:05d}.pt"


class OpenRound:
    """Takes the updates of one round, each once, from any thread and in any order.

    Args:
        number: of the round.
        method: gets the changes that are taken.
        task: of the job.
        bound: on the size of updates.
        extras_bound: on the size of what updates contain besides changes of weights.
        waiting: for updates that wait for the median of the first round.
        log: takes lines about the progress.

    Attributes:
        sent: the sites that were sent something.
        reports: by site, of the updates that were taken.
        wire_bytes: by site, of its tensors, up and down.
        sizes: by site, of updates with tensors.
        missed: by site, why the round goes on without it.
    """

    def __init__(
        self,
        number: int,
        method: AtServer,
        task: Task,
        bound: NormBound,
        extras_bound: NormBound,
        waiting: TensorStore,
        log: Callable[[str], None],
    ):
        self.number = number
        self.sent: set[str] = set()
        self.reports: dict[str, dict[str, Any]] = {}
        self.wire_bytes: dict[str, tuple[int, int]] = {}
        self.sizes: dict[str, Size] = {}
        self.missed: dict[str, str] = {}
        self._method, self._task, self._waiting, self._log = method, task, waiting, log
        self._bound, self._extras_bound = bound, extras_bound
        self._extra_sizes: dict[str, Size] = {}
        self._waits: set[str] = set()
        self._lock = threading.Lock()
        self._open = True
        method.open(number)

    def hand_out(self, site: str) -> None:
        """Notes that a site was sent something."""
        with self._lock:
            self.sent.add(site)

    def miss(self, site: str, reason: str) -> None:
        """Notes why the round goes on without a site; the first reason counts."""
        with self._lock:
            self.missed.setdefault(site, reason)

    def why_absent(self, site: str) -> str:
        """Why there is no update of a site."""
        absent = "no answer in time" if site in self.sent else "not connected"
        return self.missed.get(site, absent)

    def waiting_for(self) -> list[str]:
        """The sites whose update may still come."""
        return sorted(self.sent - set(self.reports)) if self._open else []

    def accept(self, profile: SiteProfile, update: Update, wire_bytes: tuple[int, int]) -> dict[str, Any]:
        """Takes a site's update; returns its checked report.

        Raises:
            UpdateRefused: it does not fit what was sent; the round goes on without it.
        """
        site = profile.name
        with self._lock:
            if not self._open or site not in self.sent:
                raise UpdateRefused(f"update of {site} for round {update.round} refused: no round waits for it")
            if site in self.reports:
                raise UpdateRefused(f"update of {site} for round {update.round} refused: one is in already")
            try:
                extras = self._method.expect_extras(site)
                check_update(profile, self.number, self._method.expect(site), update, extras)
                report = check_report(site, TrainReport, update.report, self._task)
                check_figures(site, report, self._method.settings)
                check_trained_on(site, report["cases"], profile.cases["train"])
                check_validated(site, report["validation"], self.number)
            except UpdateRefused as error:
                self.missed.setdefault(site, str(error))
                raise
            extras = parts(update.tensors, (EXTRA,))
            changes = {key: value for key, value in update.tensors.items() if key not in extras}
            if changes:
                self.sizes[site] = size_of(changes)
            if extras:
                self._extra_sizes[site] = size_of(extras)
            if (changes and self._bound.waits) or (extras and self._extras_bound.waits):
                self._waiting.save(site, update.tensors)
                self._waits.add(site)
            else:
                self._take(site, changes, extras, report["cases"])
            self.reports[site] = report
            self.wire_bytes[site] = wire_bytes
            return report

    def _take(self, site: str, changes: Tensors, extras: Tensors, cases: int) -> None:
        if changes:
            changes, self.sizes[site] = self._bounded(site, "update", self._bound, changes, self.sizes[site])
        self._method.take(site, changes, cases)
        if extras:
            part = "extra part of the update"
            extras, _ = self._bounded(site, part, self._extras_bound, extras, self._extra_sizes[site])
            self._method.take_extras(site, extras, cases)

    def _bounded(self, site: str, what: str, bound: NormBound, tensors: Tensors, size: Size) -> tuple[Tensors, Size]:
        tensors, size = bound.limit(tensors, bound.judge(size))
        if size.factor < 1:
            self._log(
                f"round {self.number}: the {what} of {site} is scaled down to the median site's size: it was "
                f"{size.own / size.median:.3g} times as large, aggregation.norm_bound is {bound.bound:g}"
            )
        if size.filters:
            self._log(
                f"round {self.number}: scaled down to the median site's size: {counted(size.filters, 'filter')} of the "
                f"{what} of {site}, each more than twice aggregation.norm_bound, {bound.bound:g}, times as large"
            )
        return tensors, size

    def give_up(self) -> None:
        """Takes no more updates; those that came are lost."""
        with self._lock:
            self._open = False
            self._waiting.clear()

    def close(self) -> None:
        """Takes no more updates."""
        with self._lock:
            self._open = False

    @property
    def waits(self) -> bool:
        """Whether there are updates that wait for the median of their round."""
        return bool(self._waits)

    def hand_on(self) -> None:
        """Hands on the updates that waited for the median of their round, and notes the median for the next one."""
        with self._lock:
            for bound, sizes in ((self._bound, self.sizes), (self._extras_bound, self._extra_sizes)):
                if bound.waits:
                    bound.set_median(sizes.values())
            for site in sorted(self._waits):
                # From disk, one site at a time: memory does not grow with their number.
                tensors = self._waiting.load(site)
                extras = parts(tensors, (EXTRA,))
                changes = {key: value for key, value in tensors.items() if key not in extras}
                self._take(site, changes, extras, self.reports[site]["cases"])
            self._waits.clear()
        self._bound.set_median(self.sizes.values())
        self._extras_bound.set_median(self._extra_sizes.values())
