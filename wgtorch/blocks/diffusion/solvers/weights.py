"""Turns as weighted sums.

The step functions of this folder are linear in their tensors; what multiplies them depends on the levels of noise alone. So a
block evaluates its step on numbers - 1 for one argument and 0 for the others - once for each turn of a grid, and keeps the
weights that come out. A turn is then the least that can be done: one multiplication, and a fused addition for each further
tensor.

    step function    ddim_step(x0, eps, z, now, to, eta)        paper symbols, on tensors or numbers
    weights          turn -> (w_x, w_pred, w_z)                 Python floats, made once for a grid
    a turn           next_latent = w_x latent + w_pred pred + w_z z
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, add, mul

Matrix = tuple[tuple[float, ...], ...]
"""The weights of one turn, [outputs, arguments]."""
Terms = tuple[tuple[int, Any], ...] | Tensor
"""The weights of one output: (argument, weight) of those that are not 0, weights being numbers or tensors of one number; or a tensor
[arguments], where a loop body is compiled."""
Row = Sequence[Terms] | Tensor


class Turn(NamedTuple):
    """What a solver has made of a grid beforehand, for one turn.

    Args:
        row: the terms of each output.
        matrix: the same weights with their zeros.
        next_timestep: what the backbone is to be called with next; 0 after the last turn.
        is_last: the turn arrives at the end.
        is_noisy: noise has a weight.
        quick: as ``row``, for float32: a multiplication takes half the time when its number is a tensor already.
        pair: of ``quick`` where it is no more than the latent and the prediction: by what the first is multiplied (None: 1), and
            the weight of the second.
    """

    row: tuple[Terms, ...]
    matrix: Matrix
    next_timestep: float
    is_last: bool
    is_noisy: bool
    quick: tuple[Terms, ...]
    pair: tuple[Tensor | None, float] | None = None


class TurnTensors(NamedTuple):
    """What a compiled loop body is told of a turn, as tensors of the same shapes in every turn.

    Args:
        row: weights [outputs, arguments].
        next_timestep: what the backbone is to be called with next, a tensor of one number.
        is_last: the turn arrives at the end, likewise.
        memory: what the turn before remembered; zeros in the first.
        noise: like the latent, where the solver is stochastic; zeros where it has no weight.
    """

    row: Tensor
    next_timestep: Tensor
    is_last: Tensor
    memory: tuple[Tensor, ...] = ()
    noise: Tensor | None = None


def weigh(terms: Terms, tensors: Sequence[Any]) -> Any:
    """The sum of tensors[k], each by its weight; None when nothing has one.

    Args:
        terms: for K arguments.
        tensors: [K] of [B, C, ...]; None where there is no weight.
    """
    if terms.__class__ is tuple and len(terms) == 2:  # what most turns are
        (place, weight), (other, share) = terms
        start = tensors[place] if weight.__class__ is float and weight == 1 else mul(tensors[place], weight)
        return add(start, tensors[other], alpha=share)  # in place it would save little, and cost vmap over the models of a shared latent
    if terms.__class__ is tuple and len(terms) == 1 and terms[0][1] == 1:
        return tensors[terms[0][0]]
    total: Any = None
    if isinstance(terms, Tensor):
        for factor, tensor in zip(terms.unbind(), tensors, strict=False):
            if tensor is not None:
                total = tensor * factor if total is None else total + tensor * factor
        return total
    for place, weight in terms:
        if total is None:
            total = tensors[place] if weight.__class__ is float and weight == 1 else mul(tensors[place], weight)
        else:
            total = add(total, tensors[place], alpha=weight)
    return total


def quickened(row: Sequence[tuple[tuple[int, float], ...]]) -> tuple[Terms, ...]:
    """The row with the weights that multiply as tensors; those that are fused into an addition stay numbers."""
    with torch.inference_mode(False):  # they outlive the run that makes them
        return tuple(
            tuple((place, torch.tensor(weight) if not k and weight != 1 else weight) for k, (place, weight) in enumerate(terms))
            for terms in row
        )


def pair_of(quick: tuple[Terms, ...]) -> tuple[Tensor | None, float] | None:
    """The weights of the latent and the prediction, where there is one output and it is made of these two."""
    if len(quick) != 1 or [place for place, _ in quick[0]] != [0, 1]:
        return None
    (_, weight), (_, share) = quick[0]
    return (weight if isinstance(weight, Tensor) else None), share


def weigh_pair(pair: tuple[Tensor | None, float], latent: Tensor, pred: Tensor) -> Tensor:
    """As :func:`weigh`, of the latent and the prediction alone."""
    weight, share = pair
    return add(latent if weight is None else mul(latent, weight), pred, alpha=share)


def numbers_of(terms: Terms, count: int) -> Sequence[Any]:
    """The first ``count`` weights of an output, zeros included."""
    if isinstance(terms, Tensor):
        return terms[:count].unbind()
    found = dict(terms)
    return [found.get(place, 0.0) for place in range(count)]


def weights_of(function: Callable[..., Sequence[float]], count: int) -> Matrix:
    """The matrix [outputs, count] of a linear function: column k is what it gives for 1 in place k and 0 elsewhere."""
    columns = [function(*[1.0 if k == place else 0.0 for k in range(count)]) for place in range(count)]
    return tuple(tuple(map(float, row)) for row in zip(*columns, strict=True))
