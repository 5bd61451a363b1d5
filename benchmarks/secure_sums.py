"""Could the server add updates up without seeing one? A study of secure aggregation in one process.

Bonawitz et al., CCS 2017: every two sites agree on a mask that one adds and the other subtracts, and every site adds
one of its own. The server gets numbers that look random, and their sum, modulo 2^64, is the sum of the updates. Ours
are added as integers anyway (:mod:`fedmepd.methods.parts.exact_sum`), so the result has the same bits as without masks.

If a site drops out, the others hand the server shares of the key behind its pairwise masks; of a site that delivered,
shares of its own mask. No site hands out both for the same site: an update that comes late stays masked.

The command measures seconds and bytes and compares the bits. It is no part of the product; docs/privacy.md has the
verdict.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from benchmarks import measure
from fedmepd.methods.parts.exact_sum import ExactSum

# Of the field of the shares, above any key of 32 bytes.
PRIME = 2**521 - 1
_SHARE_BYTES = 66
_SCALE = 2.0**36


def mask(seed: bytes, size: int) -> np.ndarray:
    """Returns integers modulo 2^64 that nobody can tell from random ones without the seed of 32 bytes."""
    encryptor = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(8 * size)), dtype=np.uint64)


def split(secret: bytes, places: Sequence[int], threshold: int) -> dict[int, int]:
    """Returns a share for every place, of which any ``threshold`` give the secret and fewer say nothing (Shamir)."""
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {
        place: sum(factor * pow(place, power, PRIME) for power, factor in enumerate(coefficients)) % PRIME
        for place in places
    }


def joined(shares: dict[int, int]) -> bytes:
    """Returns the secret of at least ``threshold`` shares by place: Lagrange's polynomial at 0."""
    total = 0
    for place, share in shares.items():
        factor = 1
        for other in shares:
            if other != place:
                factor = factor * other * pow(other - place, -1, PRIME) % PRIME
        total += share * factor
    return (total % PRIME).to_bytes(_SHARE_BYTES, "big")[-32:]


def _agreed(private: X25519PrivateKey, public: bytes, purpose: bytes) -> bytes:
    shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    return HKDF(hashes.SHA256(), 32, None, purpose).derive(shared)


class Refused(Exception):
    """A site does not hand out what would unmask somebody's update."""


@dataclass
class Member:
    """One site's side of one round.

    Args:
        place: from 1 on.
        threshold: sites that have to help to unmask.
    """

    place: int
    threshold: int
    _sealing: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    _masking: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    _own: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _keys: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    _held: dict[int, tuple[int, int]] = field(default_factory=dict)
    _answered: bool = False

    def keys(self) -> tuple[bytes, bytes]:
        """The public keys of the round: for sealing shares, and for masks."""
        return tuple(key.public_key().public_bytes_raw() for key in (self._sealing, self._masking))

    def shares(self, keys: dict[int, tuple[bytes, bytes]]) -> dict[int, bytes]:
        """Takes everybody's keys; returns for every other site, sealed, shares of the own mask and of the key."""
        self._keys = keys
        places = list(keys)
        own, key = (split(value, places, self.threshold) for value in (self._own, self._masking.private_bytes_raw()))
        self._held[self.place] = own[self.place], key[self.place]
        sealed = {}
        for other in places:
            if other != self.place:
                nonce = secrets.token_bytes(12)
                plain = b"".join(share[other].to_bytes(_SHARE_BYTES, "big") for share in (own, key))
                seal = AESGCM(_agreed(self._sealing, keys[other][0], b"shares"))
                sealed[other] = nonce + seal.encrypt(nonce, plain, self._pair(self.place, other))
        return sealed

    @staticmethod
    def _pair(sender: int, receiver: int) -> bytes:
        return f"{sender}>{receiver}".encode()

    def hold(self, sender: int, sealed: bytes) -> None:
        """Keeps the shares that another site has sent through the server."""
        seal = AESGCM(_agreed(self._sealing, self._keys[sender][0], b"shares"))
        plain = seal.decrypt(sealed[:12], sealed[12:], self._pair(sender, self.place))
        self._held[sender] = tuple(int.from_bytes(plain[at : at + _SHARE_BYTES], "big") for at in (0, _SHARE_BYTES))

    def masked(self, units: np.ndarray) -> np.ndarray:
        """Returns the update, integers modulo 2^64, behind all masks."""
        total = units.view(np.uint64) + mask(self._own, units.size)
        for other, (_, public) in self._keys.items():
            if other != self.place:
                pairwise = mask(_agreed(self._masking, public, b"mask"), units.size)
                total = total + pairwise if self.place < other else total - pairwise
        return total

    def help(self, delivered: Collection[int]) -> dict[int, int]:
        """Returns a share for every site: of its own mask if it has delivered, else of its key.

        Raises:
            Refused: too few have delivered, or this site has answered in this round already.
        """
        if self._answered:
            raise Refused(f"site {self.place} has helped in this round: a second answer could unmask a late update")
        if len(set(delivered)) < self.threshold:
            raise Refused(f"{len(set(delivered))} sites have delivered: expected {self.threshold} or more")
        self._answered = True
        return {other: own if other in delivered else key for other, (own, key) in self._held.items()}


def unmask(
    masked: dict[int, np.ndarray], keys: dict[int, tuple[bytes, bytes]], shares: dict[int, dict[int, int]]
) -> np.ndarray:
    """Returns the sum of the updates that were delivered, as integers.

    Args:
        masked: updates by place.
        keys: everybody's public keys.
        shares: by the place of who helps, what :meth:`Member.help` returned.
    """
    total = sum(masked.values())
    for place in keys:
        secret = joined({helper: of_helper[place] for helper, of_helper in shares.items()})
        if place in masked:
            total = total - mask(secret, total.size)
            continue
        private = X25519PrivateKey.from_private_bytes(secret)
        for other in masked:
            pairwise = mask(_agreed(private, keys[other][1], b"mask"), total.size)
            # What the site that is gone would have added or subtracted.
            total = total + pairwise if place < other else total - pairwise
    return total.view(np.int64)


def units_of(change: torch.Tensor, weight: float) -> np.ndarray:
    """Returns a weighted change as the integers that the product adds up."""
    term = ExactSum(change.shape)
    term.add(change, weight)
    return np.rint((term.value() * _SCALE).numpy()).astype(np.int64)


def round_of(sites: int, dropped: int, values: int) -> dict[str, Any]:
    """Does a round; returns seconds and bytes of it, and whether the sum has the bits of today's.

    Args:
        sites: number of sites.
        dropped: how many are gone when their update is due; at most a third.
        values: length of an update.
    """
    random = torch.Generator().manual_seed(sites)
    changes = {place: torch.randn(values, generator=random) * 0.01 for place in range(1, sites + 1)}
    weights = {place: float(place % 7 + 1) for place in changes}
    members = {place: Member(place, threshold=2 * sites // 3 + 1) for place in changes}
    alive = list(members)[dropped:]
    started = time.perf_counter()
    keys = {place: member.keys() for place, member in members.items()}
    sealed = {place: member.shares(keys) for place, member in members.items()}
    for sender, of_sender in sealed.items():
        for receiver, one in of_sender.items():
            members[receiver].hold(sender, one)
    exchanged = time.perf_counter()
    masked = {}
    for place in alive:
        masked[place] = members[place].masked(units_of(changes[place], weights[place]))
    hidden = time.perf_counter()
    shares = {place: members[place].help(alive) for place in alive}
    total = unmask(masked, keys, shares)
    ended = time.perf_counter()
    plain = ExactSum(torch.Size((values,)))
    for place in alive:
        plain.add(changes[place], weights[place])
    others = sites - 1
    return {
        "sites": sites,
        "dropped": dropped,
        "same_bits": bool(torch.equal(torch.from_numpy(total).double() / _SCALE, plain.value())),
        "seconds_keys": (exchanged - started) / sites,
        "seconds_site": (hidden - exchanged) / len(alive),
        "seconds_server": ended - hidden,
        "bytes_update": 8 * values,
        "bytes_today": 2 * values,
        "bytes_keys": 64 + 64 * others + 2 * len(next(iter(sealed[1].values()))) * others + _SHARE_BYTES * sites,
    }


@measure.command
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=1_000_000, help="of an update; default: a million")
    parser.add_argument("--sites", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--json", type=Path, help="file for the figures; default: benchmarks/results/secure_sums.json")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the command out")
    options = parser.parse_args(arguments)
    values, numbers = (1000, [4]) if options.quick else (options.values, options.sites)
    rows = [round_of(sites, dropped, values) for sites in numbers for dropped in (0, sites // 4)]
    environment = measure.environment()
    print(f"\n{measure.describe(environment)}\n{values} values in an update\n")
    cells = [
        [
            row["sites"],
            row["dropped"],
            "yes" if row["same_bits"] else "NO",
            *(f"{row[key]:.2f}" for key in ("seconds_keys", "seconds_site", "seconds_server")),
            f"{row['bytes_update'] / row['bytes_today']:.0f}",
            f"{row['bytes_keys'] / 1024:.0f}",
        ]
        for row in rows
    ]
    seconds = ("s a site: keys", "s a site: masks", "s server")
    print(measure.table(["sites", "dropped", "same bits", *seconds, "bytes / float16", "KiB of keys, a site"], cells))
    report = measure.write_report(
        "secure_sums", options.json, environment, rows, busy=os.getloadavg()[0], values=values
    )
    print(f"\nwritten to {report}")


if __name__ == "__main__":
    sys.exit(main())
