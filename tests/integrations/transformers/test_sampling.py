"""Drawing tokens: as often as their probabilities say, among those that are left."""

from __future__ import annotations

import pytest
import torch

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.transformers.sampling import DrawEachRow, Sampling, restricted, sampling_defaults

LOGITS = torch.tensor([[2.0, 0.0, 1.0, -1.0, 0.5]])


def drawn(sampling: Sampling, count: int) -> torch.Tensor:
    """How often each token is drawn, as shares."""
    draw = DrawEachRow(sampling, [torch.Generator().manual_seed(seed) for seed in range(count)])
    scores = draw(torch.zeros(count, 1, dtype=torch.long), LOGITS.expand(count, -1))
    assert ((scores == 0).sum(-1) == 1).all() and torch.isneginf(scores).sum() == count * 4
    return torch.bincount(scores.argmax(-1), minlength=5) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_softmax_says(temperature: float) -> None:
    torch.testing.assert_close(drawn(Sampling(temperature=temperature), 8000), (LOGITS / temperature).softmax(-1)[0], atol=0.02, rtol=0)


def test_what_is_ruled_out_is_never_drawn() -> None:
    shares = drawn(Sampling(top_k=2), 2000)
    assert shares[[1, 3, 4]].sum() == 0
    torch.testing.assert_close(shares[[0, 2]], LOGITS[0, [0, 2]].softmax(-1), atol=0.04, rtol=0)


def test_restrictions_are_those_of_transformers() -> None:
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(16, 50, generator=torch.Generator().manual_seed(0))
    for top_k, top_p in ((5, 1.0), (0, 0.3), (0, 0.95), (7, 0.6)):
        expected = logits
        if top_k:
            expected = processors.TopKLogitsWarper(top_k)(None, expected)
        if top_p < 1:
            expected = processors.TopPLogitsWarper(top_p)(None, expected)
        assert torch.equal(restricted(logits, Sampling(top_k=top_k, top_p=top_p)), expected)


def test_a_models_own_sampling_counts_where_it_samples() -> None:
    generation = pytest.importorskip("transformers").GenerationConfig
    assert sampling_defaults(generation(do_sample=True, temperature=0.6, top_p=0.9)) == {"temperature": 0.6, "top_p": 0.9}
    assert sampling_defaults(generation()) == {}


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_tokens": 0}, {"stop": ("",)}])
def test_options_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=f"sampling: {next(iter(wrong))} is"):
        Sampling(**wrong)
