"""The planner: a structure in, a frozen plan or a list of findings out. Pure, without torch.

A plan is a flat tuple of steps over numbered slots. A slot holds one value of one run: an exposed input, an output that
somebody reads, the combination of several, or what a loop carries from iteration to iteration.

    inputs -> [0]            Call(a, args=(0,), store=y->[1])
                             Loop(body=(Call(b, args=(2,), store=z->[3]),), carries=(2 <- first [1], then [3]))
    outputs <- [3]
"""

from wgtorch.core.plan.build import make_plan
from wgtorch.core.plan.checks import validate_structure
from wgtorch.core.plan.steps import (
    FROZEN,
    LEVEL,
    NONE,
    RNG,
    STREAM,
    SURROUNDED,
    UNSURE,
    Call,
    Carry,
    Chain,
    Combine,
    Hoisted,
    Loop,
    Plan,
    Step,
    Unit,
    calls_of,
)
from wgtorch.core.plan.wiring import strong_components, upstream

__all__ = [
    "FROZEN",
    "LEVEL",
    "NONE",
    "RNG",
    "STREAM",
    "SURROUNDED",
    "UNSURE",
    "Call",
    "Carry",
    "Chain",
    "Combine",
    "Hoisted",
    "Loop",
    "Plan",
    "Step",
    "Unit",
    "calls_of",
    "make_plan",
    "strong_components",
    "upstream",
    "validate_structure",
]
