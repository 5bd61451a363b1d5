from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.federation import bits


@pytest.fixture(scope="session")
def finished(tiny, tmp_path_factory):
    """A finished federation in one process by method, float32 on the wire: trained once, read by many tests.

    Its ``machine``, whose sites would test models of others and share the scores of cases, its ``folder``, its
    ``results`` and ``seen``, the rounds that it told of. FedMEPD's sites draw their cases.
    """
    agreeing = SimpleNamespace(machine=tiny.machine.model_copy(update={"cross_site": "share", "case_scores": "share"}))

    @cache
    def of(method: str) -> SimpleNamespace:
        folder: Path = tmp_path_factory.mktemp(method)
        seen: list[int] = []
        pictures = method == "fedmepd"
        results = bits.train(
            agreeing, method, "float32", folder, pictures, watch=lambda number, figures: seen.append(number)
        )
        return SimpleNamespace(machine=agreeing.machine, folder=folder, results=results, seen=seen)

    return of
