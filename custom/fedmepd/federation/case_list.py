"""The final test's scores of every case, by place in the test list, where the site shares them."""

from __future__ import annotations

import hashlib
from typing import Any

from fedmepd.data.batches import EvaluationCase
from fedmepd.data.fingerprints import fingerprints
from fedmepd.data.site import SiteData
from fedmepd.disclosure import Disclosure, Withheld
from fedmepd.evaluation.metrics import CaseScores


class CaseList:
    """Collects the scores of a test. No name and no path is in them.

    Args:
        data: the site's; its test cases are sorted by name.
        case_scores: what the site agrees to, see :class:`fedmepd.site_settings.SiteSettings`.
        disclosure: what may leave the site.
    """

    def __init__(self, data: SiteData, case_scores: str, disclosure: Disclosure):
        self._data = data
        # Made-up cases are nobody's: their sites always agree.
        self._shares = disclosure.allow.case_scores and (case_scores == "share" or data.source == "phantom")
        self._cases: dict[int, dict[str, Any]] = {}

    def watch(self, place: int, case: EvaluationCase, prediction: Any, scores: CaseScores) -> None:
        """Takes the scores of the case at a place of the list; see :func:`~fedmepd.federation.evaluate.score_cases`."""
        self._cases[place] = {"dice": scores.dice, "hd95_mm": scores.hd95_mm, "empty": scores.empty}

    def report(self, withheld: Withheld | None = None) -> dict[str, Any]:
        """Returns ``cases``, a dictionary for each, and the ``fingerprint`` of the test list.

        Both are None if the site does not share them, if there is no test case, if the model fits only a part of the
        cases, or if their means stay at the site: everybody could compute these.

        Args:
            withheld: why the means stay; None: they leave.
        """
        everything = len(self._cases) == len(self._data.test) > 0
        if not self._shares or not everything or withheld:
            return {"cases": None, "fingerprint": None}
        return {"cases": [self._cases[place] for place in sorted(self._cases)], "fingerprint": fingerprint(self._data)}


def fingerprint(data: SiteData) -> str:
    """Returns a text that is the same for the same test cases in the same order: SHA-256 over their label files."""
    labels = [case.label for case in data.test]
    digests = fingerprints(labels, data.cache / "fingerprints.json")
    return hashlib.sha256("".join(digests[label] for label in labels).encode()).hexdigest()
