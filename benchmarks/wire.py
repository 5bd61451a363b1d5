"""Bytes of every site and round, against sending the whole model in float32: ``python -m benchmarks.wire``.

The server, the sites, the filters and the serialization are the product's and FLARE's own, and everything that is
counted has been read back and used; the training in between is one step on a small phantom. Counted are the tensors, as
the filter hands them over, and the message around them as FLARE writes it: names, scaling exponents, settings, report.
FLARE's transport adds a few kilobytes to each message.

The report has a row for each round and site: ``down`` and ``up`` hold the bytes of the ``tensors`` and of the whole
``message``; ``contents`` says what a task of round 1 is made of. ``fusion`` has the same for every task of a fusion
site at a hospital, by method and precision.

``--methods`` measures something else: every method but those for phantoms alone, with a site of one modality and one
of all, in the first round and in a later one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from nvflare.apis.dxo import from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs

from benchmarks import measure
from benchmarks.phantoms import phantom_data
from fedmepd import methods
from fedmepd.config import FUSION_SITE
from fedmepd.data.phantom import phantom_sites
from fedmepd.federation.exchange import FusionReply, FusionTask
from fedmepd.federation.fusion_desk import FusionDesk
from fedmepd.federation.fusion_elsewhere import FusionElsewhere
from fedmepd.federation.fusion_site import Fusion, FusionSite
from fedmepd.federation.server import FederationServer
from fedmepd.federation.server_state import FILE_NAME
from fedmepd.federation.site import FederationSite
from fedmepd.flare import translation
from fedmepd.flare.filters import FromWirePrecision, ToWirePrecision
from fedmepd.job_settings import make_settings
from fedmepd.networks.network import FedMEPDNet
from fedmepd.storage import load_tensors, save_tensors
from fedmepd.tasks.brats import BRATS
from fedmepd.training.arithmetic import use_threads

SITES = {site: modalities for site, modalities in phantom_sites().items() if site != FUSION_SITE}

# Shares of the whole model in float32 in round 1, at width 16: for sites with all modalities, and for sites with one.
TARGET_WIDTH = 16
TARGETS = {len(BRATS.modalities): 0.45, 1: 0.22}

# Shares of personal filters, one round each.
SHARES = (0.0, 0.25, 0.5, 1.0)

# One method for every way in which the fusion site's weights travel.
FUSION_METHODS = ("fedmepd", "fedavg", "fedbn", "local", "fusion_only")
# The hospital with the fusion site, where there is one: a site with all modalities.
HOSPITAL = "site-8"
PRECISIONS = ("float16", "float32")

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """Bytes of one message: of its tensors alone, and of all of it as FLARE writes it."""

    tensors: int
    message: int


@dataclass(frozen=True)
class Exchange:
    """What went to a site in a round, and what came back."""

    round: int
    personal_share: float
    site: str
    modalities: tuple[str, ...]
    down: Size
    up: Size
    method: str = "fedmepd"


@dataclass(frozen=True)
class FusionExchange:
    """What went to a fusion site at a hospital with one task, and what came back."""

    method: str
    precision: str
    round: int
    kind: str
    down: Size
    up: Size


def whole_model(width: int) -> int:
    """Returns the bytes of everything that a network with all modalities consists of, in float32."""
    calibration = make_settings().calibration.model_dump(include={"residual", "dropout"})
    weights = FedMEPDNet(BRATS, width=width, calibration=calibration).state_dict().values()
    return sum(weight.numel() * torch.float32.itemsize for weight in weights)


def write(message: Shareable) -> tuple[bytes, Size]:
    """Returns a message as it leaves: through the product's filter, then written by FLARE."""
    sent = ToWirePrecision().process(message, FLContext())
    written = fobs.dumps(sent)
    # FLARE calls no filter for a message without tensors.
    return written, Size(from_shareable(sent).get_meta_prop(translation.BYTES, 0), len(written))


def read(written: bytes) -> Shareable:
    """The inverse of :func:`write`."""
    return FromWirePrecision().process(fobs.loads(written), FLContext())


def contents(message: Shareable) -> dict[str, int]:
    """Returns the bytes of a message as it leaves, by what they are for, the largest first."""
    written, size = write(message)
    sent = fobs.loads(written)
    dxo = from_shareable(sent)
    parts: dict[str, int] = {}
    for key, tensor in dxo.data.items():
        part = f"tensors: {key.split('.')[0]}"
        parts[part] = parts.get(part, 0) + tensor.numel() * tensor.element_size()
    for kind, values in (("header", sent[ReservedHeaderKey.HEADERS]), ("meta", dxo.meta)):
        parts |= {f"{kind}: {key}": len(fobs.dumps({key: value})) for key, value in values.items()}
    parts["names, types and shapes of tensors"] = size.message - sum(parts.values())
    return dict(sorted(parts.items(), key=lambda part: -part[1]))


class Courier:
    """The way to a fusion site in this process, in messages as FLARE writes them.

    Args:
        run: the job's.
        desk: does the tasks.

    Attributes:
        exchanges: what has gone there and back, task by task.
    """

    def __init__(self, run: translation.Run, desk: FusionDesk):
        self._run, self._desk = run, desk
        self.exchanges: list[FusionExchange] = []

    def __call__(self, task: FusionTask, abort: Callable[[], bool]) -> FusionReply:
        written, down = write(translation.fusion_task(self._run, task))
        received = read(written)
        reply = self._desk.do(translation.fusion_task_of(received), abort)
        written, up = write(translation.fusion_reply(reply, self._run, received))
        settings = self._run.settings
        of = settings.method, settings.aggregation.wire_precision
        self.exchanges.append(FusionExchange(*of, task.round, task.kind, down, up))
        return translation.fusion_reply_of(HOSPITAL, read(written))


class Federation:
    """The eight sites of the protocol and the fusion site, with a network of the given width and very little data.

    Args:
        folder: for their data and states.
        width: of the network.
        crop: side of the training crops.
        precision: of the tensors on the wire.
        fusion_cases: at the fusion site; four make all the anchors that the paper has.
        method: of the job.
        hospital: the site that is the fusion site too, and is then the only one; empty: the server.
        sites: that take part where the fusion site is the server; none: all.

    Attributes:
        courier: the way to the fusion site at the hospital; None where there is none.
    """

    def __init__(
        self,
        folder: Path,
        width: int,
        crop: int,
        precision: str = "float16",
        fusion_cases: int = 4,
        method: str = "fedmepd",
        hospital: str = "",
        sites: Sequence[str] = (),
    ):
        changes = {
            "method": method,
            "fusion": {"site": hospital},
            "evaluation": {"window": 48},
            "network": {"width": width},
            "training": {"crop": crop},
            "augmentation": {"tumour_share": 1.0, "rotation_degrees": 0},
            "aggregation": {"wire_precision": precision, "min_sites": 1},
        }
        self.run = translation.Run("wire", make_settings("paper", changes))
        self._folder = folder
        data = phantom_data(folder, FUSION_SITE, fusion_cases)
        self._fusion = replace(data, validation=data.train[:1]) if hospital else data
        self.courier: Courier | None = None
        self._data = {name: phantom_data(folder, name, 1) for name in ([hospital] if hospital else sites or SITES)}
        self.sites = {
            name: FederationSite(name, self.run.settings, data, folder / name, _CPU)
            for name, data in self._data.items()
        }
        self.server = self._make_server()
        self._register()
        self.server.start(_never)

    def _register(self) -> None:
        for site in self.sites.values():
            self.server.register(site.profile())

    def _make_server(self) -> FederationServer:
        folder = self._folder / "server"
        return FederationServer(self.run.settings, self._make_fusion(), folder, folder)

    def _make_fusion(self) -> Fusion:
        settings = self.run.settings
        place = self._folder / FUSION_SITE
        here = FusionSite(settings, self._fusion, place, _CPU, open_site=self._data.__getitem__)
        if not settings.fusion.site:
            return here
        desk = FusionDesk(here, half_precision=settings.aggregation.wire_precision == "float16")
        self.courier = Courier(self.run, desk)
        profile = self.sites[settings.fusion.site].profile(self._fusion.counts())
        return FusionElsewhere(settings, profile, self.courier)

    def task(self, site: str) -> Shareable:
        """The next round's task for a site."""
        return translation.task(self.run, self.server.payload(site))

    def make_personal(self, share: float) -> None:
        """Makes the same share of every convolution's filters personal at all sites, and resumes the server so."""
        path = self._folder / "server" / FILE_NAME
        content = load_tensors(path)
        for layers in content["method"]["filters"]["state"].values():
            for rows in layers.values():
                # Neither patience nor weight is left.
                rows[:, : round(share * rows.shape[1])] = 0
        save_tensors(path, content)
        self.server = self._make_server()
        self.server.restore()
        self._register()

    def play(self, share: float) -> list[Exchange]:
        """Plays a round; ``share`` of the filters is only noted."""
        self.server.begin_round()
        exchanges = []
        for name, site in self.sites.items():
            written, down = write(self.task(name))
            received = read(written)
            update = site.train(translation.payload_of(received), _never)
            written, up = write(translation.update_reply(update, self.run, received))
            self.server.accept(name, translation.update_of(name, read(written)))
            exchanges.append(Exchange(update.round, share, name, SITES[name], down, up, self.run.settings.method))
        self.server.finish_round(_never)
        return exchanges


def rounds(federation: Federation, shares: Sequence[float]) -> list[Exchange]:
    """Plays one round for each share of personal filters, growing."""
    found = []
    for share in shares:
        federation.make_personal(share)
        found += federation.play(share)
    return found


def fusion_at_a_hospital(width: int, crop: int, cases: int, last: int = 2) -> list[FusionExchange]:
    """Plays the rounds up to ``last`` of some methods in every precision; returns all that the fusion site is sent."""
    found = []
    for method in FUSION_METHODS:
        for precision in PRECISIONS:
            with tempfile.TemporaryDirectory() as folder:
                federation = Federation(Path(folder), width, crop, precision, cases, method, HOSPITAL)
                for _ in range(last):
                    federation.play(0.0)
                found += federation.courier.exchanges
    return found


def by_method(width: int, crop: int, cases: int, names: Sequence[str], last: int = 2) -> list[Exchange]:
    """Plays the rounds up to ``last`` of every method, with a site of one modality and one of all.

    Args:
        width, crop: see :class:`Federation`.
        cases: at the fusion site.
        names: of the methods.
        last: the last round.
    """
    found = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            sites = _smallest_and_largest()
            federation = Federation(Path(folder), width, crop, fusion_cases=cases, method=name, sites=sites)
            for _ in range(last):
                found += federation.play(0.0)
    return found


def _never() -> bool:
    return False


@measure.command
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables and writes the report."""
    parser = measure.arguments("Bytes of every site and round, against sending the whole model in float32.", pairs=None)
    parser.add_argument("--width", type=int, help="channels at full resolution; default: 16, with --quick 4")
    parser.add_argument("--methods", action="store_true", help="measure every method, and nothing else")
    options = parser.parse_args(arguments)
    use_threads(options.threads)
    width = options.width or (4 if options.quick else 16)
    # Three is the fewest from which the fusion site makes an anchor.
    crop, fusion_cases = (16, 3) if options.quick else (32, 4)
    fobs.register(TensorDecomposer)
    whole = whole_model(width)
    environment = measure.environment()
    print(measure.describe(environment))
    print(f"\nWhole model of width {width} in float32: {whole / 1e6:.1f} MB = 100 %\n")
    if options.methods:
        # With a method for phantoms alone, every site makes the fusion site's cases: not those of this federation.
        names = [name for name in methods.names() if not methods.find(name).phantoms_only]
        of_methods = by_method(width, crop, fusion_cases, names)
        print("Every method, half precision on the wire: message down + up, % of the whole model")
        print(_method_table(of_methods, whole))
        rows = [asdict(exchange) for exchange in of_methods]
        path = measure.write_report("wire_methods", options.json, environment, rows, width=width, whole_model=whole)
        print(f"\nwritten to {path}")
        return
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(Path(folder), width, crop, fusion_cases=fusion_cases)
        federation.server.begin_round()
        messages = {site: contents(federation.task(site)) for site in _smallest_and_largest()}
        exchanges = rounds(federation, SHARES)
    fusion = fusion_at_a_hospital(width, crop, fusion_cases, last=1 if options.quick else 2)
    print("Round 1, half precision on the wire")
    first = [exchange for exchange in exchanges if exchange.personal_share == SHARES[0]]
    print(_first_round(first, whole))
    print("\nRounds with a share of personal filters: message down + up, % of the whole model")
    print(_later_rounds(exchanges, whole))
    for site, parts in messages.items():
        print(f"\nWhat the task of {site} ({', '.join(SITES[site])}) holds in round 1, bytes")
        total = sum(parts.values())
        rows = [(part, f"{size:,}", f"{size / total:.3%}") for part, size in parts.items()]
        print(measure.table(("part", "bytes", "of the message"), rows))
    print("\nThe fusion site at a hospital: message down + up, MB")
    print(_fusion_table(fusion))
    if width == TARGET_WIDTH:
        print("\n" + "\n".join(_judge(first, whole)))
    path = measure.write_report(
        "wire",
        options.json,
        environment,
        [asdict(exchange) for exchange in exchanges],
        width=width,
        whole_model=whole,
        contents=messages,
        fusion=[asdict(exchange) for exchange in fusion],
    )
    print(f"\nwritten to {path}")


def _smallest_and_largest() -> list[str]:
    by_count = sorted(SITES, key=lambda site: len(SITES[site]))
    return [by_count[0], by_count[-1]]


def _first_round(exchanges: list[Exchange], whole: int) -> str:
    rows = []
    for exchange in exchanges:
        sizes = [exchange.down.tensors, exchange.down.message, exchange.up.tensors, exchange.up.message]
        shares = [exchange.down.message / whole, exchange.up.message / whole]
        rows.append(
            [
                f"{exchange.site}: {', '.join(exchange.modalities)}",
                *(f"{size / 1e6:.3f}" for size in sizes),
                *(f"{share:.1%}" for share in shares),
            ]
        )
    headers = ["site", "down: tensors MB", "message MB", "up: tensors MB", "message MB", "down", "up"]
    return measure.table(headers, rows)


def _later_rounds(exchanges: list[Exchange], whole: int) -> str:
    rows = []
    for site, modalities in SITES.items():
        of_site = [exchange for exchange in exchanges if exchange.site == site]
        cells = [f"{exchange.down.message / whole:.1%} + {exchange.up.message / whole:.1%}" for exchange in of_site]
        rows.append([f"{site}: {', '.join(modalities)}", *cells])
    return measure.table(["site", *(f"{share:.0%} personal" for share in SHARES)], rows)


def _method_table(exchanges: list[Exchange], whole: int) -> str:
    columns = sorted({(exchange.site, exchange.round) for exchange in exchanges})
    cells: dict[str, dict[tuple[str, int], str]] = {}
    for exchange in exchanges:
        shares = f"{exchange.down.message / whole:.1%} + {exchange.up.message / whole:.1%}"
        cells.setdefault(exchange.method, {})[exchange.site, exchange.round] = shares
    headers = ["method", *(f"{site} ({len(SITES[site])} modalities): round {number}" for site, number in columns)]
    return measure.table(headers, [[name, *(found[key] for key in columns)] for name, found in cells.items()])


def _fusion_table(exchanges: list[FusionExchange]) -> str:
    columns = sorted({(exchange.round, exchange.kind) for exchange in exchanges})
    cells: dict[tuple[str, str], dict[tuple[int, str], str]] = {}
    for exchange in exchanges:
        sizes = f"{exchange.down.message / 1e6:.3f} + {exchange.up.message / 1e6:.3f}"
        cells.setdefault((exchange.method, exchange.precision), {})[exchange.round, exchange.kind] = sizes
    names = {"fuse": "training", "validate": "validation"}
    headers = ["method", "precision", *(f"round {number}: {names[kind]}" for number, kind in columns)]
    return measure.table(headers, [[*of, *(found.get(key, "") for key in columns)] for of, found in cells.items()])


def _judge(exchanges: list[Exchange], whole: int) -> list[str]:
    lines = []
    for count, target in TARGETS.items():
        share = max(
            max(exchange.down.message, exchange.up.message) / whole
            for exchange in exchanges
            if len(exchange.modalities) == count
        )
        verdict = "met" if share <= target else "MISSED"
        lines.append(f"Sites with {count} modalities, round 1: at most {share:.1%}; target {target:.0%}: {verdict}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
