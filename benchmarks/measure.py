"""What all benchmarks share: alternating pairs, spreads, fresh processes with their peak memory, tables and reports."""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fedmepd.cli.terminal import INTERRUPTED, interruptible, positive, refuse
from fedmepd.errors import FedMEPDError
from fedmepd.storage import write_json

RESULTS = Path(__file__).parent / "results"
MIB = 2**20

# Processor features that decide how fast half precision is, as Linux names them.
_FEATURES = {"avx2": "AVX2", "avx512f": "AVX512", "avx512_bf16": "AVX512_BF16", "amx_bf16": "AMX_BF16"}


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Makes a function a command: what a user can put right takes one line, and so does an interruption.

    Args:
        main: returns the exit status; None: 0.

    Returns:
        the same function, which returns an exit status in these cases too.
    """

    @functools.wraps(main)
    def run(*arguments: Any, **keywords: Any) -> int:
        # As the user has started it: Python calls the module itself __main__.
        spec = getattr(sys.modules[main.__module__], "__spec__", None)
        program = spec.name if spec else main.__module__
        try:
            with interruptible():
                return main(*arguments, **keywords) or 0
        except (FedMEPDError, OSError) as error:
            return refuse(program, error)
        except KeyboardInterrupt:
            print(f"{program}: interrupted", file=sys.stderr)
            return INTERRUPTED

    return run


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some measurements."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        """``median (lowest-highest)`` as tables show it, the median alone where all are the same."""
        if self.lowest == self.highest:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.lowest:.{digits}f}-{self.highest:.{digits}f})"

    def as_dict(self) -> dict[str, float]:
        """Returns ``median``, ``lowest`` and ``highest``, as reports hold them."""
        return asdict(self)


@dataclass(frozen=True)
class Pairs:
    """Measurements of two ways of doing the same, taken in pairs.

    Attributes:
        first, second: one value a pair: seconds, or what else was measured.
    """

    first: list[Any]
    second: list[Any]

    def each(self, value: Callable[[Any], float]) -> Pairs:
        """Returns one number of each measurement, where those are more than numbers."""
        return Pairs([value(one) for one in self.first], [value(one) for one in self.second])

    def ratios(self) -> list[float]:
        """Returns first / second of each pair: how many times more the first way takes."""
        return [first / second for first, second in zip(self.first, self.second, strict=True)]

    def ratio(self) -> Spread:
        """Returns the spread of the pairs' ratios; its median is the median ratio, not the ratio of the medians."""
        return Spread.of(self.ratios())


def seconds(work: Callable[[], Any]) -> float:
    """Returns how long ``work`` takes. Work on a GPU has to wait for it before it returns."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternate(
    pairs: int,
    first: Callable[[], Any],
    second: Callable[[], Any],
    warmup: int = 1,
    measure: Callable[[Callable[[], Any]], Any] = seconds,
) -> Pairs:
    """Measures two ways of doing the same by turns, so that a machine that slows down slows both.

    Args:
        pairs: how often each is measured; every other pair starts with the second.
        first, second: the two ways, called without arguments.
        warmup: calls of each before anything is measured.
        measure: what to measure; called with one of the two.
    """
    for _ in range(warmup):
        first()
        second()
    measured: tuple[list[Any], list[Any]] = ([], [])
    for pair in range(pairs):
        for place in (0, 1) if pair % 2 == 0 else (1, 0):
            measured[place].append(measure((first, second)[place]))
    return Pairs(*measured)


@dataclass(frozen=True)
class Run:
    """One run in a process of its own.

    Attributes:
        result: what the work returned.
        seconds: how long it took, preparation not counted.
        held_mib: resident memory before the work started.
        peak_mib: most resident memory while it ran.
    """

    result: Any
    seconds: float
    held_mib: float
    peak_mib: float

    @property
    def above_mib(self) -> float:
        """Memory that the work took on top of what was held before."""
        return self.peak_mib - self.held_mib


def in_fresh_process(prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> Run:
    """Runs some work once, in a new process that nothing has run in before.

    Args:
        prepare: a function at the top level of a module; called in the new process with ``arguments``, returns the
            work. It should not need more memory than the work.
        arguments: anything that can be pickled; the work's result too.

    Raises:
        RuntimeError: the process died, for lack of memory most likely.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_run, prepare, arguments).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"the process that ran {prepare.__name__} died: it may have run out of memory, try smaller sizes"
            ) from error


def _run(prepare: Callable[..., Callable[[], Any]], arguments: tuple) -> Run:
    work = prepare(*arguments)
    _forget_peak()
    held = memory_mib()
    started = time.perf_counter()
    result = work()
    return Run(result, time.perf_counter() - started, held, peak_memory_mib())


def memory_mib() -> float:
    """Returns the memory that this process holds now (resident set)."""
    return _status("VmRSS")


def peak_memory_mib() -> float:
    """Returns the most memory that this process has held (resident set).

    Not from ``getrusage``: its figure starts at what the parent process held.
    """
    return _status("VmHWM")


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        # Not allowed in some containers: the peak then counts from the start of the process.
        pass


def _status(key: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError as error:
        raise RuntimeError("memory is read from /proc/self/status: run this benchmark on Linux") from error
    [kib] = [int(line.split()[1]) for line in lines if line.startswith(f"{key}:")]
    return kib * 1024 / MIB


def environment() -> dict[str, Any]:
    """Returns what decides the figures of this machine; nothing that tells whose it is."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor, features = _processor()
    return {
        "processor": processor,
        "features": features,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "monai", "nvflare", "fedmepd")},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> tuple[str, list[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = values.get("model name", platform.machine())
    if "cpu family" in values:
        name += f" (family {values['cpu family']}, model {values['model']})"
    flags = values.get("flags", "").split()
    return name, [title for flag, title in _FEATURES.items() if flag in flags]


def describe(environment: dict[str, Any]) -> str:
    """Returns the environment as one line to stand above a table."""
    features = f" with {', '.join(environment['features'])}" if environment["features"] else ""
    gpu = f", {environment['gpu']}" if environment["gpu"] else ""
    return (
        f"{environment['processor']}{features}, {environment['threads']} threads on {environment['cores']} cores{gpu}; "
        f"PyTorch {environment['torch']}"
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table: first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(3, *(len(row[place]) for row in cells)) for place in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        aligned = [row[0].ljust(widths[0])] + [
            cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
        ]
        return f"| {' | '.join(aligned)} |"

    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def write_report(
    name: str, json_path: Path | None, environment: dict[str, Any], rows: Sequence[dict[str, Any]], **more: Any
) -> Path:
    """Writes what a benchmark found as JSON.

    Args:
        name: the benchmark's, such as ``step``.
        json_path: the file; None for ``benchmarks/results/NAME.json``.
        environment: see :func:`environment`.
        rows: one dictionary for each row of the table.
        more: further top-level keys.

    Returns:
        the file.
    """
    path = json_path or RESULTS / f"{name}.json"
    write_json(path, {"benchmark": name, "environment": environment, **more, "rows": list(rows)})
    return path


def arguments(description: str, pairs: int | None = 5) -> argparse.ArgumentParser:
    """Returns a parser with the options that every benchmark has: ``pairs``, ``threads``, ``json``, ``quick``.

    Args:
        description: of the benchmark.
        pairs: default of ``--pairs``; None for a benchmark without that option.
    """
    parser = argparse.ArgumentParser(description=description)
    if pairs is not None:
        parser.add_argument(
            "--pairs", type=positive, default=pairs, help=f"measurements of each side; default: {pairs}"
        )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; default: PyTorch's choice, all cores")
    parser.add_argument("--json", type=Path, help="file for the figures; default: benchmarks/results/NAME.json")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the command out; no figures to quote")
    return parser
