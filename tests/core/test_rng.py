"""Random draws depend on what they are for, never on when they are made."""

from __future__ import annotations

import pytest
import torch

from wgtorch.core.run.rng import Rng, key_to_seed, seeded_global


def test_rows_of_a_batch_do_not_depend_on_its_size() -> None:
    rng = Rng(7, "paint/noise")
    large, small = rng.normal((5, 3)), rng.normal((2, 3))
    assert torch.equal(large[:2], small)
    assert not torch.equal(large[0], large[1])
    assert torch.equal(rng.uniform((3, 2))[2:], rng.uniform((3, 2))[2:])


def test_a_mapped_item_is_the_row_of_a_batch() -> None:
    batch = Rng(7, "n", ()).normal((4, 3))
    for index in range(4):
        assert torch.equal(Rng(7, "n", (), sample=(index,)).normal((1, 3))[0], batch[index])


@pytest.mark.parametrize("other", [Rng(8, "n"), Rng(7, "m"), Rng(7, "n", (1,)), Rng(7, "n", sample=(1,))])
def test_every_part_of_the_key_matters(other: Rng) -> None:
    assert Rng(7, "n").seed() != other.seed()


def test_keys_do_not_run_together() -> None:
    assert key_to_seed(1, "23") != key_to_seed(12, "3")
    assert key_to_seed("a", ()) != key_to_seed("a")
    assert 0 <= key_to_seed("x") < 2**63


def test_seeds_are_the_same_in_every_process_and_version() -> None:
    # A stored world must be continued by another process: these numbers may never change.
    assert key_to_seed(0, "a") == 9026062096370171638
    assert Rng(7, "n").python().random() == Rng(7, "n").python().random()


def test_without_a_key_the_global_generator_rules() -> None:
    torch.manual_seed(3)
    expected = torch.randn(2, 3)
    torch.manual_seed(3)
    assert torch.equal(Rng().normal((2, 3)), expected)
    assert not Rng().keyed
    assert Rng(0).keyed


def test_dtype_and_empty_batch() -> None:
    assert Rng(1).normal((2, 2), dtype=torch.float64).dtype == torch.float64
    assert Rng(1).normal((0, 3)).shape == (0, 3)


def test_the_distribution_is_standard_normal() -> None:
    draws = Rng(5).normal((64, 64))
    assert abs(draws.mean().item()) < 0.05
    assert abs(draws.std().item() - 1) < 0.05


def test_the_global_generator_is_put_back_also_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"), seeded_global(Rng(3)):
        torch.rand(5)
        raise RuntimeError("inside")
    assert torch.equal(torch.get_rng_state(), before)
    with seeded_global(Rng(3)):
        first = torch.rand(2)
    with seeded_global(Rng(3)):
        assert torch.equal(torch.rand(2), first)
