"""What a run remembers of every site and of the fusion site, round by round: the source of its results and curves."""

from __future__ import annotations

from typing import Any

from fedmepd.federation.norm_bound import Size
from fedmepd.methods.method import Fused, Spent
from fedmepd.methods.parts.selection import DECODER


class Records:
    """One record for every site, one for the fusion site; plain values throughout.

    A record holds ``joined`` (the first round that the site could take part in), ``rounds_taken``, ``rounds_missed``
    (round and reason), ``limited`` (round, how many times the median site's size the update had, and how many
    ``filters`` were scaled down alone), the latest
    ``validation``, ``ended`` (the first round that it did not train any more, since its privacy budget is spent; None
    as long as it trains), ``test``, ``test_cases`` and ``test_fingerprint`` (see
    :class:`~fedmepd.federation.reports.CaseReports`), ``untested`` (why there is no test), ``trained_on`` (number
    of cases), ``peak_mib`` (the most memory that its process has held), ``privacy`` (what it has spent of its privacy
    budget, see :class:`~fedmepd.federation.reports.SpentPrivacy`; None without), and ``history``:

    - ``validation``: every one, with its round;
    - ``rounds``: for every round taken, losses, the method's own figures, steps, seconds, bytes, and how large the
      update was (``times_median``);
    - ``personal``: by layer, pairs of round and number of personal filters, wherever the number changed.
    """

    def __init__(self) -> None:
        self._records: dict[str, dict[str, Any]] = {}

    def join(self, owner: str, first_round: int) -> None:
        """Begins a record, unless there is one."""
        self._records.setdefault(
            owner,
            {
                "joined": first_round,
                "rounds_taken": [],
                "rounds_missed": [],
                "limited": [],
                "ended": None,
                "validation": None,
                "test": None,
                "test_cases": None,
                "test_fingerprint": None,
                "untested": None,
                "trained_on": None,
                "peak_mib": None,
                "privacy": None,
                "history": {"validation": [], "rounds": [], "personal": {}},
            },
        )

    def __getitem__(self, owner: str) -> dict[str, Any]:
        return self._records[owner]

    def __iter__(self):
        return iter(self._records)

    def take(
        self, site: str, round_number: int, report: dict[str, Any], size: Size | None, sizes: tuple[int, int]
    ) -> None:
        """Notes a round in which a site's update was taken.

        Args:
            site: its name.
            round_number: the round.
            report: a checked :class:`~fedmepd.federation.reports.TrainReport`.
            size: of the update; None where sites return none.
            sizes: bytes up and down.
        """
        record = self._records[site]
        record["rounds_taken"].append(round_number)
        record["privacy"] = report["privacy"]
        compared = {"times_median": round(size.own / size.median, 3)} if size is not None and size.median else {}
        spent = Spent(report["steps"], report["seconds"] or 0.0, report["peak_mib"])
        figures = report["losses"] | report["figures"]
        self._spend(site, round_number, figures, report["cases"], spent, sizes, compared)
        if size is not None and (size.factor < 1 or size.filters):
            record["limited"].append({"round": round_number, **compared, "filters": size.filters})
        if report["validation"]:
            self.validate(site, report["validation"])

    def miss(self, site: str, round_number: int, reason: str) -> None:
        """Notes a round that went on without a site, and why."""
        self._records[site]["rounds_missed"].append({"round": round_number, "reason": reason})

    def end_training(self, site: str, round_number: int, spent: dict[str, Any]) -> None:
        """Notes that a site trains no further from a round on, and what it has spent of its privacy budget."""
        self._records[site] |= {"ended": round_number, "privacy": spent}

    def ended(self, site: str) -> int | None:
        """Returns the first round that a site did not train any more; None as long as it trains."""
        # A run that an older version began says nothing of it.
        return self._records[site].get("ended")

    def train_again(self, site: str) -> None:
        """Forgets that a site trains no further."""
        self._records[site]["ended"] = None

    def train(self, owner: str, round_number: int, fused: Fused, wire_bytes: tuple[int, int]) -> None:
        """Notes the fusion site's training of a round, and the bytes up and down where it is elsewhere."""
        self._records[owner]["privacy"] = fused.privacy
        self._spend(owner, round_number, fused.losses | fused.figures, fused.cases, fused.spent, wire_bytes, {})

    def _spend(
        self,
        owner: str,
        round_number: int,
        figures: dict[str, float],
        cases: int,
        spent: Spent,
        sizes: tuple[int, int],
        more: dict[str, float],
    ) -> None:
        record = self._records[owner]
        cost = {"steps": spent.steps, "seconds": spent.seconds, "bytes_up": sizes[0], "bytes_down": sizes[1]}
        record["history"]["rounds"].append({**figures, **cost, **more, "round": round_number})
        # With some methods the fusion site trains on more cases than its own.
        record["trained_on"] = cases
        if spent.peak_mib is not None:
            record["peak_mib"] = max(spent.peak_mib, record.get("peak_mib") or 0.0)

    def test(self, owner: str, scores: dict[str, Any] | None, cases: dict[str, Any]) -> None:
        """Notes the final test.

        Args:
            owner: whose model it is.
            scores: averages; None without test cases.
            cases: what :func:`~fedmepd.federation.reports.check_cases` returned.
        """
        self._records[owner] |= {"test": scores, **cases}

    def work(self, owner: str, batch: int, networks: int) -> dict[str, Any]:
        """Returns what the run has cost somebody so far.

        Args:
            owner: whose record it is.
            batch: crops in a step.
            networks: that it keeps.

        Returns:
            ``steps`` of training, ``passes`` over the training cases, ``seconds`` of work, ``bytes_up`` and
            ``bytes_down`` of tensors, ``peak_mib`` (the most memory that its process has held), ``networks``.
        """
        record = self._records[owner]
        rounds, cases = record["history"]["rounds"], record.get("trained_on")
        # A round of a run that an older version began does not say everything.
        sums = {
            key: sum(entry.get(key, 0) for entry in rounds) for key in ("steps", "seconds", "bytes_up", "bytes_down")
        }
        return {
            "steps": sums["steps"],
            "passes": round(sums["steps"] * batch / cases, 3) if cases else 0.0,
            "seconds": round(sums["seconds"], 3),
            "bytes_up": sums["bytes_up"],
            "bytes_down": sums["bytes_down"],
            "peak_mib": record.get("peak_mib"),
            "networks": networks,
        }

    def privacy(self) -> dict[str, Any] | None:
        """Returns what that participant has spent whose epsilon is largest; None if anybody trained without privacy."""
        trained = [record.get("privacy") for record in self._records.values() if record["history"]["rounds"]]
        return max(trained, key=lambda spent: spent["epsilon"]) if trained and all(trained) else None

    def add(self, owner: str, figures: dict[str, float]) -> None:
        """Adds figures to what is noted of an owner's last round."""
        self._records[owner]["history"]["rounds"][-1] |= figures

    def validate(self, owner: str, validation: dict[str, Any]) -> None:
        """Notes a validation: ``round``, ``dice`` and ``mdsc``."""
        self._records[owner]["validation"] = validation
        self._records[owner]["history"]["validation"].append(validation)

    def personal(self, site: str, round_number: int, filters: dict[str, int]) -> None:
        """Notes how many filters of each convolution are personal, where that has changed."""
        for layer, count in filters.items():
            personal_step(self._records[site]["history"]["personal"], layer.removeprefix(DECODER), round_number, count)

    def state(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return self._records

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self._records = state


def personal_step(history: dict[str, list[list[int]]], layer: str, round_number: int, count: int) -> None:
    """Notes how many filters of a convolution are personal, where that has changed: pairs of round and number."""
    steps = history.setdefault(layer, [])
    if count != (steps[-1][1] if steps else 0):
        steps.append([round_number, count])
