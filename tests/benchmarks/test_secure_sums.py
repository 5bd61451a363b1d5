from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import secure_sums
from benchmarks.secure_sums import Member, Refused, joined, mask, split, unmask


def members(count: int, threshold: int) -> tuple[dict[int, Member], dict]:
    everybody = {place: Member(place, threshold) for place in range(1, count + 1)}
    keys = {place: member.keys() for place, member in everybody.items()}
    sealed = {place: member.shares(keys) for place, member in everybody.items()}
    for sender, of_sender in sealed.items():
        for receiver, one in of_sender.items():
            everybody[receiver].hold(sender, one)
    return everybody, keys


def test_any_few_shares_give_the_secret_and_fewer_do_not() -> None:
    secret = bytes(range(1, 33))
    shares = split(secret, range(1, 6), threshold=3)
    for places in ((1, 2, 3), (1, 3, 5), (2, 4, 5), (1, 2, 3, 4, 5)):
        assert joined({place: shares[place] for place in places}) == secret
    assert joined({1: shares[1], 2: shares[2]}) != secret


@pytest.mark.parametrize("gone", [(), (2,), (1, 5)])
def test_the_sum_is_exact_whoever_drops_out(gone) -> None:
    everybody, keys = members(5, threshold=3)
    updates = {place: np.array([place, -(2**40) * place, 0], dtype=np.int64) for place in everybody}
    alive = [place for place in everybody if place not in gone]
    masked = {place: everybody[place].masked(updates[place]) for place in alive}
    total = unmask(masked, keys, {place: everybody[place].help(alive) for place in alive})
    assert total.tolist() == [sum(alive), -(2**40) * sum(alive), 0]
    for place in alive:
        assert not np.array_equal(masked[place].view(np.int64), updates[place])


def test_a_late_update_stays_masked() -> None:
    """The server has the key behind the pairwise masks of a site that it took for gone; the site's own mask stays."""
    everybody, keys = members(4, threshold=3)
    update = np.arange(4, dtype=np.int64)
    late = everybody[1].masked(update)
    alive = [2, 3, 4]
    shares = {place: everybody[place].help(alive) for place in alive}
    private = secure_sums.X25519PrivateKey.from_private_bytes(
        joined({helper: of_helper[1] for helper, of_helper in shares.items()})
    )
    for other in alive:
        late = late - mask(secure_sums._agreed(private, keys[other][1], b"mask"), 4)
    assert np.array_equal(late, update.view(np.uint64) + mask(everybody[1]._own, 4))
    assert not np.array_equal(late.view(np.int64), update)
    # And nobody helps a second time, nor a server that says that hardly anybody has delivered.
    with pytest.raises(Refused, match="second answer"):
        everybody[2].help([1, 2, 3, 4])
    with pytest.raises(Refused, match="expected 3 or more"):
        everybody[1].help([1, 2])


def test_command(tmp_path, capsys) -> None:
    secure_sums.main(["--quick", "--json", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["sites"], row["dropped"], row["same_bits"]) for row in rows] == [(4, 0, True), (4, 1, True)]
    assert "same bits" in capsys.readouterr().out
