"""Memory and time of a round at the server, by the number of sites: ``python -m benchmarks.server``.

The first round is measured, in which every update waits on disk for the median size, and one as all later ones are. The
product is the real server, from the first update to the end of the round: checks, sums, changes spooled to disk for
the personalization, personalization, state written to disk. Only the fusion training is left out. Straightforward is to
keep all updates, then average them; its memory grows with the sites, so the largest numbers are measured without it.
Updates are made one at a time, as they would arrive; making them is not timed, but is part of both ways' memory.

The messages are simulated: every site's task is made and written, and every update is written as a site would and read,
with the product's filters and FLARE's serialization. The network between them is missing, and so are FLARE's sessions
with its clients.

The report has a row for each number of sites; ``product`` and ``straightforward`` hold ``accept_seconds`` (taking in
all updates), ``finish_seconds`` (what follows the last one), both together in all and per update, ``peak_mib``
(resident memory) and ``above_base_mib`` (without what was held before the first update). ``product`` also has
``later_seconds`` and ``later_seconds_per_update`` (both together of a later round; the others are of the first),
``write_seconds`` and ``read_seconds`` of all messages, ``megabytes_down`` and ``megabytes_up``. ``straightforward`` is
null where it was not measured.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs
from torch import Tensor

from benchmarks import measure, wire
from benchmarks.phantoms import phantom_data
from fedmepd.config import FUSION_SITE
from fedmepd.federation.exchange import SiteProfile, Update
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.server import FederationServer
from fedmepd.flare import translation
from fedmepd.job_settings import make_settings
from fedmepd.methods.method import Fused
from fedmepd.methods.parts.selection import DECODER
from fedmepd.tasks.brats import PROTOCOL_SUBSETS
from fedmepd.training.arithmetic import use_threads

SITES = (8, 64, 256)
# Keeping every update of more sites takes more than 8 GiB.
MOST_STRAIGHTFORWARD = 256

# Peaks of memory may differ by this much.
TARGET = 0.10

# About the size of a weight's change in a round.
_CHANGE = 1e-3

_CPU = torch.device("cpu")
_REPORT = {
    "cases": 1,
    "losses": {},
    "figures": {},
    "steps": 1,
    "train_seconds": 1.0,
    "validation_seconds": 0.0,
    "seconds": 1.0,
    "validation": None,
}

Tensors = dict[str, Tensor]


class NoTraining(FusionSite):
    """A fusion site that leaves the weights as they are."""

    def fuse(self, weights: Tensors, round_number: int, *_: Any, **__: Any) -> Fused:
        return Fused(weights, {}, len(self.data.train))


class Round:
    """A server that waits for the updates of a round; the first is 1.

    Args:
        folder: for its data and state.
        sites: number of sites; their modalities are those of the protocol, over and over.
        width: of the network.
        threads: of the server; 0 for PyTorch's choice.
        means: ``aggregation`` of the settings, as far as it differs from the paper's.
    """

    def __init__(self, folder: Path, sites: int, width: int, threads: int = 0, means: dict[str, float] | None = None):
        changes = {
            "network": {"width": width},
            "training": {"fusion_threads": threads},
            # Every update counts for the personalization from the first round on.
            "personalization": {"warmup_rounds": 0},
            "aggregation": {"min_sites": 1} | (means or {}),
        }
        self.settings = make_settings("paper", changes)
        data = phantom_data(folder, FUSION_SITE, 1)
        fusion = NoTraining(self.settings, data, folder / "fusion", _CPU)
        self.server = FederationServer(self.settings, fusion, folder / "server", folder / "server")
        for number in range(sites):
            modalities = PROTOCOL_SUBSETS[number % len(PROTOCOL_SUBSETS)]
            cases = {"train": 1, "validation": 0, "test": 0}
            self.server.register(SiteProfile(f"site-{number:03d}", modalities, cases, "phantom"))
        self.server.start(_never)
        self.begin()

    def begin(self) -> None:
        """Opens the next round."""
        self.server.begin_round()
        # As in a job, every site's payload is made before the first update arrives. Shapes are kept once for sites of
        # the same modalities, so that the benchmark itself takes no memory for a site.
        self._shapes: dict[tuple[str, ...], dict[str, torch.Size]] = {}
        for site, profile in self.server.profiles.items():
            self._shapes[profile.modalities] = {key: value.shape for key, value in self._weights(site).items()}

    def _weights(self, site: str) -> Tensors:
        tensors = self.server.payload(site).tensors
        return {key: value for key, value in tensors.items() if key.startswith(("encoders.", DECODER))}

    def weights(self) -> Tensors:
        """The server's encoders and decoder, as its sites receive them."""
        return {key: value for site in self.server.profiles for key, value in self._weights(site).items()}

    def updates(self, backwards: bool = False) -> Iterator[tuple[str, Tensors]]:
        """Makes one update after the other, the same at every call: changes rounded to half precision."""
        sites = list(enumerate(self.server.profiles.items()))
        for number, (site, profile) in reversed(sites) if backwards else sites:
            shapes = self._shapes[profile.modalities]
            random = torch.Generator().manual_seed(number)
            tensors = {key: _CHANGE * torch.randn(shape, generator=random) for key, shape in shapes.items()}
            yield site, {key: tensor.half().float() for key, tensor in tensors.items()}

    def play(self, backwards: bool = False) -> dict[str, float]:
        """The product's round; returns the seconds of all updates together, and of what follows the last one."""
        accepting = 0.0
        for site, tensors in self.updates(backwards):
            accepting += measure.seconds(partial(self.server.accept, site, self._update(tensors)))
        return {"accept": accepting, "finish": measure.seconds(lambda: self.server.finish_round(_never))}

    def _update(self, tensors: Tensors) -> Update:
        return Update(self.server.round + 1, tensors, _REPORT)

    def play_with_messages(self) -> dict[str, float]:
        """The same; also the seconds of writing all tasks and reading all updates, and the bytes of both."""
        fobs.register(TensorDecomposer)
        run = translation.Run("server", self.settings)
        spent = dict.fromkeys(("write", "down", "read", "up", "accept"), 0.0)
        for site, tensors in self.updates():
            started = time.perf_counter()
            task, size = wire.write(translation.task(run, self.server.payload(site)))
            spent["write"] += time.perf_counter() - started
            spent["down"] += size.message
            sent = self._update(tensors)
            update, size = wire.write(translation.update_reply(sent, run, wire.read(task)))
            spent["up"] += size.message
            started = time.perf_counter()
            received = translation.update_of(site, wire.read(update))
            spent["read"] += time.perf_counter() - started
            spent["accept"] += measure.seconds(partial(self.server.accept, site, received))
        return spent | {"finish": measure.seconds(lambda: self.server.finish_round(_never))}

    def play_two(self) -> dict[str, float]:
        """The round with messages, and a later one without: the seconds of its updates and end together."""
        spent = self.play_with_messages()
        self.begin()
        return spent | {"later": sum(self.play().values())}


def average(start: Tensors, updates: Sequence[Tensors], server_share: float) -> Tensors:
    """The straightforward aggregation: plain means, of the decoder with the server's share."""
    merged = {}
    for key, value in start.items():
        mean = torch.stack([update[key] for update in updates if key in update]).mean(dim=0)
        merged[key] = value + (1 - server_share if key.startswith(DECODER) else 1) * mean
    return merged


def prepare_product(
    folder: Path, sites: int, width: int, threads: int, means: dict[str, float]
) -> Callable[[], dict[str, float]]:
    """For a process of its own: the first round of the product, and a later one."""
    return Round(folder, sites, width, threads, means).play_two


def prepare_straightforward(
    folder: Path, sites: int, width: int, threads: int, means: dict[str, float]
) -> Callable[[], dict[str, float]]:
    """For a process of its own: all updates kept, then averaged."""
    waiting = Round(folder, sites, width, threads)

    def work() -> dict[str, float]:
        start = waiting.weights()
        updates = [tensors for _, tensors in waiting.updates()]
        share = waiting.settings.aggregation.server_share
        return {"accept": 0.0, "finish": measure.seconds(lambda: average(start, updates, share))}

    return work


def check(folder: Path, sites: int, width: int) -> float:
    """Compares the two: returns the largest difference of a weight.

    Raises:
        AssertionError: it is more than rounding explains, or the order of the sites changes the product's result.
    """
    waiting = Round(folder / "forwards", sites, width)
    expected = average(
        waiting.weights(), [tensors for _, tensors in waiting.updates()], waiting.settings.aggregation.server_share
    )
    waiting.play()
    found = waiting.weights()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    turned = Round(folder / "backwards", sites, width)
    turned.play(backwards=True)
    for key, value in turned.weights().items():
        assert torch.equal(value, found[key]), f"the order of the sites changes {key}"
    return max(float((found[key] - value).abs().max()) for key, value in expected.items())


def run(sites: Sequence[int], width: int, threads: int, pairs: int, means: dict[str, float]) -> list[dict[str, Any]]:
    """Measures both ways for each number of sites, every run in a process of its own; returns the report's rows."""
    ways = {"product": prepare_product, "straightforward": prepare_straightforward}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in sites:
            of_count = [name for name in ways if name == "product" or count <= MOST_STRAIGHTFORWARD]
            runs: dict[str, list[measure.Run]] = {name: [] for name in ways}
            for pair in range(pairs):
                for name in of_count if pair % 2 == 0 else reversed(of_count):
                    place = Path(folder) / f"{name}-{count}-{pair}"
                    runs[name].append(measure.in_fresh_process(ways[name], place, count, width, threads, means))
                    shutil.rmtree(place)
            rows.append({"sites": count, **{name: _summary(found, count) for name, found in runs.items()}})
    return rows


def _summary(runs: list[measure.Run], sites: int) -> dict[str, Any] | None:
    if not runs:
        return None

    def spread(value: Callable[[measure.Run], float]) -> dict[str, float]:
        return measure.Spread.of([value(run) for run in runs]).as_dict()

    def both(run: measure.Run) -> float:
        return run.result["accept"] + run.result["finish"]

    summary = {
        "seconds": spread(both),
        "accept_seconds": spread(lambda run: run.result["accept"]),
        "finish_seconds": spread(lambda run: run.result["finish"]),
        "seconds_per_update": spread(lambda run: both(run) / sites),
        "peak_mib": spread(lambda run: run.peak_mib),
        "above_base_mib": spread(lambda run: run.above_mib),
    }
    if "write" in runs[0].result:
        summary |= {f"{way}_seconds": spread(lambda run, way=way: run.result[way]) for way in ("write", "read")}
        summary["later_seconds"] = spread(lambda run: run.result["later"])
        summary["later_seconds_per_update"] = spread(lambda run: run.result["later"] / sites)
        summary |= {f"megabytes_{way}": spread(lambda run, way=way: run.result[way] / 1e6) for way in ("down", "up")}
    return summary


@measure.command
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table and writes the report."""
    parser = measure.arguments("Memory and time of a round at the server, by the number of sites.", pairs=1)
    parser.add_argument("--width", type=int, help="channels at full resolution; default: 16, with --quick 4")
    parser.add_argument("--sites", type=int, nargs="+", help="numbers of sites; default: 8 64 256, with --quick 2 4")
    parser.add_argument("--trim", type=float, default=0.0, help="aggregation.trim of the product; default: 0")
    parser.add_argument("--direction", type=float, default=-1.0, help="aggregation.direction; default: -1")
    options = parser.parse_args(arguments)
    use_threads(options.threads)
    width = options.width or (4 if options.quick else 16)
    sites = sorted(options.sites or ((2, 4) if options.quick else SITES))
    with tempfile.TemporaryDirectory() as folder:
        difference = check(Path(folder), 3, width)
    means = {"trim": options.trim, "direction": options.direction}
    rows = run(sites, width, options.threads, options.pairs, means)
    environment = measure.environment()
    print(measure.describe(environment))
    print(f"\nA round at the server, width {width}, without the fusion training; medians")
    print(_table(rows))
    print("\nMessages of that round, without the network")
    print(_messages(rows))
    # Of the exact sums, whatever the options say.
    print(f"\nBoth ways give 3 sites the same weights, whatever their order; largest difference {difference:.1g}")
    print("\n".join(_growth(rows)))
    path = measure.write_report("server", options.json, environment, rows, width=width, difference=difference, **means)
    print(f"\nwritten to {path}")


def _table(rows: list[dict[str, Any]]) -> str:
    headers = [
        "sites",
        "take in, s",
        "finish, s",
        "ms per update",
        "later round, s",
        "ms per update",
        "peak MiB",
        "above the base",
        "straightforward: s",
        "peak MiB",
        "above the base",
    ]
    lines = []
    for row in rows:
        ours, plain = row["product"], row["straightforward"]
        lines.append(
            [
                row["sites"],
                f"{ours['accept_seconds']['median']:.2f}",
                f"{ours['finish_seconds']['median']:.2f}",
                f"{1000 * ours['seconds_per_update']['median']:.0f}",
                f"{ours['later_seconds']['median']:.2f}",
                f"{1000 * ours['later_seconds_per_update']['median']:.0f}",
                *(f"{ours[key]['median']:.0f}" for key in ("peak_mib", "above_base_mib")),
                *_straightforward(plain),
            ]
        )
    return measure.table(headers, lines)


def _straightforward(plain: dict[str, Any] | None) -> list[str]:
    if plain is None:
        return ["-", "-", "-"]
    memory = (f"{plain[key]['median']:.0f}" for key in ("peak_mib", "above_base_mib"))
    return [f"{plain['seconds']['median']:.2f}", *memory]


def _messages(rows: list[dict[str, Any]]) -> str:
    headers = ["sites", "write tasks, s", "read updates, s", "ms per site", "MB down", "MB up"]
    lines = []
    for row in rows:
        ours = row["product"]
        seconds = [ours[key]["median"] for key in ("write_seconds", "read_seconds")]
        sizes = [f"{ours[key]['median']:.0f}" for key in ("megabytes_down", "megabytes_up")]
        each = 1000 * sum(seconds) / row["sites"]
        lines.append([row["sites"], *(f"{value:.2f}" for value in seconds), f"{each:.0f}", *sizes])
    return measure.table(headers, lines)


def _growth(rows: list[dict[str, Any]]) -> list[str]:
    peaks = [row["product"]["peak_mib"]["median"] for row in rows]
    apart = max(peaks) / min(peaks) - 1
    lines = [f"Peaks of memory are {apart:.1%} apart; target {TARGET:.0%}: {'met' if apart <= TARGET else 'MISSED'}"]
    for fewer, more in pairwise(rows):
        first, later = (
            1000 * (more["product"][key]["median"] - fewer["product"][key]["median"]) / (more["sites"] - fewer["sites"])
            for key in ("seconds", "later_seconds")
        )
        lines.append(
            f"From {fewer['sites']} to {more['sites']} sites: {first:.0f} ms per further update in the first round, "
            f"{later:.0f} in a later one"
        )
    return lines


def _never() -> bool:
    return False


if __name__ == "__main__":
    sys.exit(main())
