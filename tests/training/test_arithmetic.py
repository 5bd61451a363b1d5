"""How many threads of the processor training takes."""

from __future__ import annotations

import pytest
import torch

from fedmepd.training.arithmetic import use_threads


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield torch.get_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    # Asked for; left to PyTorch, which has three; and the same where the site allows fewer.
    [(2, None, 2), (0, None, 3), (2, 8, 2), (0, 8, 3), (0, 2, 2), (4, 2, 2), (0, 3, 3)],
)
def test_no_more_than_the_site_allows(threads, count: int, most: int | None, expected: int) -> None:
    use_threads(count, most)
    assert threads() == expected
