"""Random draws depend on what they are for, never on when they are made."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from wgtorch.core.errors import PortError
from wgtorch.core.run.active_call import drawing_from
from wgtorch.core.run.rng import Rng, check_seed, key_to_seed


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


def test_draws_that_ask_for_no_generator_are_served_and_the_global_one_is_not_touched() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"), drawing_from(Rng(3)):
        torch.rand(5)
        raise RuntimeError("inside")
    with drawing_from(Rng(3)):
        first, second = torch.rand(2), torch.rand(2)
    with drawing_from(Rng(3)):
        assert torch.equal(torch.rand(2), first)
    assert not torch.equal(first, second), "two draws of one call are two"
    assert torch.equal(torch.get_rng_state(), before)


DRAWS = {
    "rand": lambda: torch.rand(4, 3),
    "randn": lambda: torch.randn(4, 3),
    "randn with dtype": lambda: torch.randn(4, 3, dtype=torch.float64),
    "randint": lambda: torch.randint(0, 1000, (4, 3)),
    "randint from zero": lambda: torch.randint(1000, (4, 3)),
    "randperm": lambda: torch.randperm(20),
    "rand_like": lambda: torch.rand_like(torch.zeros(4, 3)),
    "randn_like": lambda: torch.randn_like(torch.zeros(4, 3)),
    "randint_like": lambda: torch.randint_like(torch.zeros(4, 3), 1000),
    "normal_": lambda: torch.zeros(4, 3).normal_(),
    "uniform_": lambda: torch.zeros(4, 3).uniform_(),
    "exponential_": lambda: torch.zeros(4, 3).exponential_(),
    "bernoulli": lambda: torch.bernoulli(torch.full((4, 30), 0.5)),
    "bernoulli_": lambda: torch.zeros(4, 30).bernoulli_(0.5),
    "multinomial": lambda: torch.multinomial(torch.ones(4, 50), 5),
    "normal": lambda: torch.normal(torch.zeros(4, 3), torch.ones(4, 3)),
    "normal of numbers": lambda: torch.normal(0.0, 1.0, (4, 3)),
    "poisson": lambda: torch.poisson(torch.full((4, 9), 30.0)),
    "dropout": lambda: torch.nn.functional.dropout(torch.ones(4, 50)),
    "dropout in place": lambda: torch.nn.functional.dropout(torch.ones(4, 50), inplace=True),
    "dropout2d": lambda: torch.nn.functional.dropout2d(torch.ones(4, 50, 1, 1)),
    "alpha dropout": lambda: torch.nn.functional.alpha_dropout(torch.ones(4, 50), training=True),
    "feature alpha dropout": lambda: torch.nn.functional.feature_alpha_dropout(torch.ones(4, 50, 1), training=True),
    "rrelu": lambda: torch.nn.functional.rrelu(-torch.ones(4, 9), training=True),
    "gumbel": lambda: torch.nn.functional.gumbel_softmax(torch.zeros(4, 9)),
    "attention": lambda: torch.nn.functional.scaled_dot_product_attention(*[torch.ones(4, 2, 8, 8)] * 3, dropout_p=0.4),
    "a distribution": lambda: torch.distributions.Normal(torch.zeros(4, 3), 1.0).sample(),
    "gamma": lambda: torch.distributions.Gamma(torch.ones(4, 3), 1.0).sample(),
    "an initialiser": lambda: torch.nn.init.kaiming_uniform_(torch.empty(4, 3)),
    "a module's parameters": lambda: torch.nn.Linear(3, 4).weight.detach(),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_every_draw_of_pytorch_is_served(draw: Callable[[], torch.Tensor]) -> None:
    before = torch.get_rng_state()
    with drawing_from(Rng(3)):
        first = draw()
    with drawing_from(Rng(3)):
        again = draw()
    with drawing_from(Rng(4)):
        other = draw()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before), "the process's generator is touched"


@pytest.mark.parametrize("name", ["rand", "randn", "randint", "normal_", "bernoulli", "multinomial", "dropout", "attention"])
def test_rows_draw_for_themselves_whatever_the_batch(name: str) -> None:
    few = {
        "rand": lambda: torch.rand(2, 3),
        "randn": lambda: torch.randn(2, 3),
        "randint": lambda: torch.randint(0, 1000, (2, 3)),
        "normal_": lambda: torch.zeros(2, 3).normal_(),
        "bernoulli": lambda: torch.bernoulli(torch.full((2, 30), 0.5)),
        "multinomial": lambda: torch.multinomial(torch.ones(2, 50), 5),
        "dropout": lambda: torch.nn.functional.dropout(torch.ones(2, 50)),
        "attention": lambda: torch.nn.functional.scaled_dot_product_attention(*[torch.ones(2, 2, 8, 8)] * 3, dropout_p=0.4),
    }[name]
    with drawing_from(Rng(3)):
        many = DRAWS[name]()
    with drawing_from(Rng(3)):
        assert torch.equal(few(), many[:2])


def test_a_generator_that_is_named_is_used() -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    with drawing_from(Rng(3)):
        assert torch.equal(torch.rand(3, generator=torch.Generator().manual_seed(5)), expected)


def test_another_thread_is_not_served() -> None:
    torch.manual_seed(0)
    expected, found = torch.randn(3), []
    torch.manual_seed(0)
    with drawing_from(Rng(3)):
        thread = threading.Thread(target=lambda: found.append(torch.randn(3)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)


@pytest.mark.parametrize("seed", ["a", 1.5, {"k": 1}, True, torch.tensor(3), [1.5], ["a"]], ids=repr)
def test_what_is_no_seed_is_refused(seed: object) -> None:
    with pytest.raises(TypeError, match=r"g: seed is .*; expected an int, or a list with one int for each sample of the batch"):
        check_seed(seed, "g")


def test_seeds() -> None:
    assert check_seed(None, "g") is None
    assert check_seed(np.int64(3), "g") == check_seed(3, "g") != check_seed(4, "g")
    assert check_seed([3, np.int32(4)], "g") == (check_seed(3, "g"), check_seed(4, "g"))
    with pytest.raises(PortError, match="empty list"):
        check_seed([], "g")
    assert check_seed(-1, "g") == check_seed(2**64 - 1, "g"), "as in torch.manual_seed"
    for beyond in (2**64, 2**64 + 1, -(2**63) - 1, [1, 2**70]):
        with pytest.raises(PortError, match=r"g: seed is -?\d+; expected an int from -2\*\*63 to 2\*\*64 - 1"):
            check_seed(beyond, "g")


def test_a_seed_for_each_sample() -> None:
    rng = Rng.of(check_seed([7, 8], "g"))
    alone = [Rng.of(check_seed([seed], "g")) for seed in (7, 8)]
    assert torch.equal(rng.normal((2, 3)), torch.cat([one.normal((1, 3)) for one in alone]))
    assert torch.equal(alone[0].normal((1, 3)), Rng.of(check_seed(7, "g")).normal((1, 3)))
    assert torch.equal(rng.normal((4, 3)), torch.cat([one.normal((2, 3)) for one in alone]))
    assert rng.seed(1) == alone[1].seed()
    with pytest.raises(PortError, match="draws for 3 samples, and the run has seeds for 2"):
        rng.normal((3, 3))
    with pytest.raises(PortError, match="seeds for 2"):
        rng.seed(2)


def test_a_single_vector_of_weights_is_no_batch() -> None:
    # Its rows are no samples: a vector of probabilities is one distribution, and each row of one would be a number.
    with drawing_from(Rng(3)):
        assert sorted(torch.multinomial(torch.ones(4), 4).tolist()) == [0, 1, 2, 3]
        drawn = torch.distributions.Dirichlet(torch.ones(4)).sample()
        rows = torch.distributions.Dirichlet(torch.ones(3, 4)).sample()
    torch.testing.assert_close(drawn.sum(), torch.tensor(1.0))
    torch.testing.assert_close(rows.sum(1), torch.ones(3))
    assert len(set(drawn.tolist())) == 4


def test_parameters_of_a_draw_are_broadcast_as_pytorch_does() -> None:
    where, wide = torch.tensor([0.0, 100.0, 200.0]), torch.zeros(3, 3)
    chances = torch.tensor([0.0, 0.0, 1.0])
    with drawing_from(Rng(3)):
        drawn = [torch.normal(where, wide + 1), torch.normal(wide + where, torch.ones(3))]
        hits = torch.empty(3, 3).bernoulli_(chances)
        counts = torch.binomial(torch.full((3, 3), 7.0), chances)
    for numbers in drawn:
        assert (numbers - where).abs().max() < 10
        assert len(set(numbers.flatten().tolist())) == 9
    assert torch.equal(hits, chances.expand(3, 3))
    assert torch.equal(counts, 7 * chances.expand(3, 3))
