"""How far a peer's rounded matrices are from the checkpoint's."""

import numpy as np
import pytest

from benchmarks.peers import errors
from benchmarks.peers.errors import relative_error

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(37, 8), (37, 2, 4)])
@pytest.mark.parametrize("at_once", [8, 80, 1 << 20])
def test_an_error_is_the_same_read_in_pieces_as_at_once(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], at_once: int
) -> None:
    monkeypatch.setattr(errors, "VALUES", at_once)
    right = RANDOM.standard_normal(shape).astype(np.float32)
    kept = right + 0.1 * RANDOM.standard_normal(shape).astype(np.float32)
    found = relative_error(shape, lambda rows: right[rows], lambda rows: kept[rows])
    assert found == pytest.approx(np.linalg.norm(right - kept) / np.linalg.norm(right), rel=1e-6)


def test_what_is_kept_whole_has_none_and_what_is_lost_has_all() -> None:
    right = RANDOM.standard_normal((37, 8)).astype(np.float32)
    assert relative_error((37, 8), lambda rows: right[rows], lambda rows: right[rows]) == 0
    assert relative_error((37, 8), lambda rows: right[rows], lambda rows: 0 * right[rows]) == 1
