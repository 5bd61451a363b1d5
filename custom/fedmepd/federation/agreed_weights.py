"""Which weights a method has travel, by its own rules and not by what a server asks for.

A site returns changes of what it was sent. So a server that sent more than the method does would be given parts of the
network that are to stay. The method's part at an honest server says what that would have asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedmepd import methods
from fedmepd.config import Settings
from fedmepd.errors import FedMEPDError
from fedmepd.federation.open_round import TensorStore
from fedmepd.methods.method import AtServer
from fedmepd.networks.build import build_network


def of_site(settings: Settings, site: str, modalities: Sequence[str]) -> frozenset[str]:
    """Returns the names of the weights whose changes may leave a site.

    Args:
        settings: of the job.
        site: its name.
        modalities: that it has.
    """
    server = _honest_server(settings)
    server.join(site, modalities)
    return frozenset(server.expect(site))


def of_fusion_site(settings: Settings) -> frozenset[str]:
    """Returns the names of the weights that may leave the fusion site."""
    return frozenset(_honest_server(settings).weights)


def require_agreed(owner: str, method: str, asked: Iterable[str], agreed: frozenset[str]) -> None:
    """Refuses to let weights leave that are to stay.

    Args:
        owner: the participant.
        method: name of the method.
        asked: names of the weights that a server wants back.
        agreed: those that may leave.

    Raises:
        FedMEPDError: it names the first of the others.
    """
    others = sorted(set(asked) - agreed)
    if others:
        told = f"{others[0]} does not leave with {methods.find(method).title}, and the server asks for it"
        raise FedMEPDError(f"{owner}: {told}", public=told)


def _honest_server(settings: Settings) -> AtServer:
    weights = dict(build_network(settings).state_dict())
    # It is asked for names alone. Whatever it wanted to store would fail there.
    return methods.find(settings.method).at_server(settings, weights, TensorStore(Path(os.devnull)))
