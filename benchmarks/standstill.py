"""Why the sites of a FedMEPD run stand still: ``python -m benchmarks.standstill OUT/fedmepd-seed-0``.

The argument is the folder of one run of `fedmepd compare run`. With `--make`, the command does the run itself, or what
is left of it, and also measures every update; `fedmepd compare run` has begun the folder before and was stopped.
It prints

1. curves: training loss and validation of the sites, and the share of personal filters, by round and by level;
2. what the sites' updates are like: norm, and cosine with the mean of the other sites' updates (with `--make`);
3. what personalization did: validation of each site with its filters exchanged. "trained": after its last epoch, as in
   the run. "sent": as the server would send it next, with its personal filters. "all shared": the same, with the
   server's filters in the place of the personal ones. "level 4" to "level 1": only those of one level. "own decoder":
   as sent, with the decoder of its last epoch, as if all filters were personal.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import command, table
from fedmepd import methods
from fedmepd.data.site import SiteData, open_site_data
from fedmepd.errors import FedMEPDError
from fedmepd.experiments.plan import PlannedRun
from fedmepd.experiments.run_folder import RunFolder
from fedmepd.federation.evaluate import score_cases
from fedmepd.federation.exchange import Payload, Update
from fedmepd.federation.in_process import run_in_process
from fedmepd.federation.kept_states import KeptStates
from fedmepd.federation.server_state import FILE_NAME as SERVER_STATE
from fedmepd.federation.wire import Wire
from fedmepd.methods.fedmepd import PATIENCE
from fedmepd.methods.parts.personal_filters import layer_of
from fedmepd.methods.parts.selection import DECODER, ENCODERS, of_modalities, parts
from fedmepd.networks.network import FedMEPDNet
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors, read_json

UPDATES = "updates.jsonl"
LEVELS = (4, 3, 2, 1)

Tensors = dict[str, Tensor]


def curves(history: dict[str, Any], filters: dict[str, int]) -> list[list[str]]:
    """Returns a row for each validation: round, the sites' mean loss and validation, share of personal filters.

    Args:
        history: the content of history.json.
        filters: number of filters of each of the decoder's convolutions.
    """
    sites = [of for name, of in history.items() if name != "server"]
    rows = []
    for number in sorted({each["round"] for of in sites for each in of["validation"]}):
        losses = [each["total"] for of in sites for each in of["rounds"] if each["round"] == number]
        scores = [each["mdsc"] for of in sites for each in of["validation"] if each["round"] == number]
        shares = [fmean(_share(of["personal"], filters, number, prefix) for of in sites) for prefix in _PREFIXES]
        loss = f"{fmean(losses):.3f}" if losses else "-"
        rows.append([str(number), loss, f"{fmean(scores):.3f}", *(f"{share:.0%}" for share in shares)])
    return rows


# All of the decoder, and its parts: levels and what follows them.
_PREFIXES = ("", *(f"levels.{level}." for level in LEVELS), "classify")
CURVES = ("round", "training loss", "validation", "personal", *(f"level {level}" for level in LEVELS), "classifier")


def _share(personal: dict[str, list], filters: dict[str, int], number: int, prefix: str) -> float:
    """The share of a site's filters that are personal after a round, of the layers that begin with a text."""
    of_part = {layer: count for layer, count in filters.items() if layer.startswith(prefix)}
    # A layer has an entry for each round in which its number changed.
    latest = (
        max((entry for entry in personal.get(layer, []) if entry[0] <= number), default=(0, 0)) for layer in of_part
    )
    return sum(count for _, count in latest) / max(1, sum(of_part.values()))


class UpdateWatch:
    """Measures the updates of a run on their way: norm, and cosine with the mean of the other sites' updates.

    Args:
        file: gets a line of JSON for each round.
    """

    def __init__(self, file: Path):
        self._file, self._round = file, 0
        self._rows: dict[str, dict[str, Tensor]] = {}
        self._changes: dict[str, Tensors] = {}
        self._masks: dict[str, Tensors] = {}

    def sent(self, site: str, payload: Payload) -> Payload:
        """Notes which filters a site shares."""
        patience = parts(payload.tensors, (PATIENCE,))
        self._rows[site] = {key.removeprefix(PATIENCE): left > 0 for key, left in patience.items()}
        return payload

    def came(self, site: str, update: Update) -> Update:
        """Takes a site's update; with the first one of a round, writes down the round before."""
        if update.round != self._round:
            self.close()
            self._round = update.round
        full, masks = {}, {}
        for key, change in parts(update.tensors, (ENCODERS, DECODER)).items():
            rows = self._rows[site].get(layer_of(key))
            full[key], masks[key] = change.float(), torch.ones_like(change, dtype=torch.float32)
            if rows is not None:
                whole = torch.zeros((len(rows), *change.shape[1:]))
                full[key], masks[key] = whole.clone(), whole
                full[key][rows], masks[key][rows] = change.float(), 1.0
        self._changes[site], self._masks[site] = full, masks
        return update

    def close(self) -> None:
        """Writes the last round down."""
        if self._changes:
            line = {"round": self._round} | {
                site: {part: self._of(site, part) for part in (ENCODERS, DECODER)} for site in self._changes
            }
            with open(self._file, "a", encoding="utf-8") as opened:
                opened.write(json.dumps(line) + "\n")
        self._changes, self._masks = {}, {}

    def _of(self, site: str, part: str) -> dict[str, float | None]:
        product, own_square, other_square, square = 0.0, 0.0, 0.0, 0.0
        for key, change in parts(self._changes[site], (part,)).items():
            square += float(change.square().sum())
            others = [of for name, of in self._changes.items() if name != site and key in of]
            if not others:
                continue
            shared = sum(
                self._masks[name][key] for name in self._changes if name != site and key in self._changes[name]
            )
            # Where at least one other site shares the filter, and this one does.
            mask = self._masks[site][key] * (shared > 0)
            mean = mask * sum(of[key] for of in others) / shared.clamp_min(1)
            product += float((change * mean).sum())
            own_square += float((mask * change).square().sum())
            other_square += float(mean.square().sum())
        norms = (own_square * other_square) ** 0.5
        return {"norm": square**0.5, "cosine": product / norms if norms else None}


def update_rows(lines: Sequence[dict[str, Any]], every: int) -> list[list[str]]:
    """Returns a row for some rounds: mean over the sites of norm and cosine, of encoders and decoder."""
    rows = []
    for line in lines:
        if line["round"] % every and line["round"] != lines[-1]["round"]:
            continue
        sites = [of for name, of in line.items() if name != "round"]
        cells = [str(line["round"])]
        for part in (ENCODERS, DECODER):
            for value, form in (("norm", ".3f"), ("cosine", "+.3f")):
                found = [of[part][value] for of in sites if of[part][value] is not None]
                cells.append(format(fmean(found), form) if found else "-")
        rows.append(cells)
    return rows


UPDATE_HEADS = ("round", "norm, encoders", "cosine", "norm, decoder", "cosine")


def exchanged(run: PlannedRun, folder: Path, site: str, server: dict[str, Any]) -> dict[str, Callable[[], FedMEPDNet]]:
    """Returns a site's networks with filters exchanged, each made when it is asked for.

    Args:
        run: the run.
        folder: of its state.
        site: its name.
        server: the server's state of the method.
    """
    states = KeptStates(folder / site)
    newest = states.newest_before(run.settings.rounds + 1)
    if newest is None:
        raise FedMEPDError(f"{folder / site} has no state of the site: expected the folder of a run of fedmepd")
    _, kept = states.load(newest)
    own, anchors = kept["network"], server["anchors"]
    place = server["filters"]["sites"].index(site)
    patience = {layer: rows[place] for layer, rows in server["filters"]["state"]["patience"].items()}
    of_server = of_modalities(parts(server["weights"], (ENCODERS, DECODER)), kept["modalities"])

    def network(weights: Tensors, trained: bool = False) -> FedMEPDNet:
        made = methods.find(run.settings.method).at_site(run.settings).network(kept["modalities"])
        made.load_state_dict(own | weights)
        levels = {int(key.rpartition(".")[2]): value.float() for key, value in anchors.items()}
        made.anchors = kept["anchors"] if trained or not levels else levels
        return made

    def sent(shared_again: Callable[[str], bool]) -> Tensors:
        weights = {}
        for key, value in of_server.items():
            weights[key] = value.clone()
            if key.startswith(DECODER) and not shared_again(key.removeprefix(DECODER)):
                personal = patience[layer_of(key)] == 0
                weights[key][personal] = own[key][personal]
        return weights

    found = {
        "trained": lambda: network({}, trained=True),
        "sent": lambda: network(sent(lambda key: False)),
        "all shared": lambda: network(sent(lambda key: True)),
    }
    for level in LEVELS:
        found[f"level {level}"] = lambda level=level: network(sent(lambda key: key.startswith(f"levels.{level}.")))
    found["own decoder"] = lambda: network(sent(lambda key: True) | parts(own, (DECODER,)))
    return found


def validations(run: PlannedRun, folder: Path, machine: SiteSettings) -> dict[str, dict[str, float]]:
    """Returns the validation mDSC of every site with its filters exchanged, by site and exchange.

    Args:
        run: the run.
        folder: of its state.
        machine: cache and device.
    """
    # Not through the server, which goes on with runs of its own settings alone: a later version may read this one's.
    file = folder / "server" / SERVER_STATE
    state = load_tensors(file) if file.is_file() else {"method": {}}
    if "filters" not in state["method"]:
        raise FedMEPDError(f"{folder} has no state of a run of fedmepd: expected OUT/fedmepd-seed-0 or such a folder")
    machine = machine.model_copy(update={"data": run.data})
    found = {}
    for site in run.sites:
        data = open_site_data(site, run.settings, machine)
        networks = exchanged(run, folder, site, state["method"])
        found[site] = {name: _validate(make(), data, run, machine) for name, make in networks.items()}
    return found


def _validate(network: FedMEPDNet, data: SiteData, run: PlannedRun, machine: SiteSettings) -> float:
    network = network.to(machine.torch_device()).eval()
    scores = score_cases(network, data.validation, run.settings, data.cache, distances=False, abort=lambda: False)
    if scores is None:
        raise FedMEPDError(f"{data.name} has no validation case: nothing can be exchanged for a validation")
    return scores["mdsc"]


def make(run: PlannedRun, folder: RunFolder, machine: SiteSettings) -> None:
    """Does a run, or what is left of it, and writes down what its updates are like."""
    wire, watch = Wire(run.settings.aggregation.wire_precision), UpdateWatch(folder.path / UPDATES)
    run_in_process(
        run.settings,
        machine.model_copy(update={"data": run.data, "case_scores": "share"}),
        folder.path / "state",
        run.sites,
        log=lambda line: print(line, flush=True),
        on_the_way=lambda site, update: watch.came(site, wire.update(site, update)),
        on_the_way_down=lambda site, payload: watch.sent(site, wire.payload(site, payload)),
        results_folder=folder.path,
    )
    watch.close()


@command
def main(arguments: Sequence[str] | None = None, machine: SiteSettings | None = None) -> int:
    """Reads a run, or makes it first, and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.standstill", description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of one run of `fedmepd compare run`")
    parser.add_argument("--make", action="store_true", help="do the run first, and measure its updates")
    options = parser.parse_args(arguments)
    folder, machine = RunFolder(options.run), machine or SiteSettings.load()
    run = folder.planned()
    if options.make:
        make(run, folder, machine)
    results, history = folder.results(), read_json(folder.path / "history.json", "the history of a run")
    print(table(CURVES, curves(history, results["filters"])) + "\n")
    if (folder.path / UPDATES).is_file():
        lines = [json.loads(line) for line in (folder.path / UPDATES).read_text(encoding="utf-8").splitlines()]
        print(table(UPDATE_HEADS, update_rows(lines, run.settings.evaluation.every)) + "\n")
    found = validations(run, folder.path / "state", machine)
    names = list(next(iter(found.values())))
    rows = [[site, *(f"{of[name]:.3f}" for name in names)] for site, of in found.items()]
    rows.append(["mean", *(f"{fmean(of[name] for of in found.values()):.3f}" for name in names)])
    print(table(["validation", *names], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
