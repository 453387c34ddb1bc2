"""Lives of the default world told by a local language model: what of it stands, contradictions by length, and what a pass costs.

    python scripts/bench/narrator.py                       # 100 passes of one life with smollm2, without pictures
    python scripts/bench/narrator.py --passes 200 --seeds 0 1 --base

For each stretch of passes: contradictions per 100 passes (the checker of the simulation), the share of parts that the grammar told,
sentences left out and why, seconds and tokens of a pass, the share of its prompt's tokens that are new, and the share that stood in the
prompt of the pass before and was computed again all the same; at the end distinct-4.
With ``--base`` the adapter is off.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from wgtorch.blocks.simulation.checker import Passage, contradictions
from wgtorch.blocks.simulation.lexicon import agreed
from wgtorch.blocks.simulation.lives import live
from wgtorch.blocks.simulation.narrator import SimulationAccount
from wgtorch.blocks.simulation.telling.narration import SYSTEM, account_of, checked
from wgtorch.blocks.simulation.telling.teller import GrammarTeller
from wgtorch.evaluation.simulation import distinct
from wgtorch.integrations.models.requests import Message
from wgtorch.templates.narrator import NARRATOR, narrator_model


def arguments() -> argparse.Namespace:
    """The program's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--stretch", type=int, default=25, help="passes of a row")
    parser.add_argument("--base", action="store_true", help="without the adapter")
    parser.add_argument("--show", type=int, default=3, help="tellings to print")
    parser.add_argument("--strays", action="store_true", help="print the sentences that were left out")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    from wgtorch import lora

    model, teller, tokens = narrator_model("smollm2"), GrammarTeller(), SimulationAccount()
    active = None if args.base else NARRATOR
    for seed in args.seeds:
        passages: list[Passage] = []
        plain: list[str] = []
        row: Counter[str] = Counter()
        why: Counter[str] = Counter()
        before: list[int] = []
        for index, passage in enumerate(live(seed, args.passes, told=False)):
            rng = random.Random(f"{seed}/{index}/told")
            account = account_of(passage.before, passage.after, passage.events)
            grammar = teller.outcome(passage.before, passage.after, passage.events, random.Random(f"{seed}/{index}/told"))
            plain.append(grammar)
            outcome = grammar
            if account.statements:
                read = encoded(model, account.prompt)
                row["shared"] += alike(read, before)
                before = read
                started = time.perf_counter()
                limit = tokens.max_tokens(len(account.statements))
                with lora.use_adapter(model, active):
                    answer = model(prompt=account.prompt, system=SYSTEM, max_tokens=limit, temperature=0.7, top_p=0.9)
                row["seconds"] += time.perf_counter() - started  # type: ignore[assignment]
                for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
                    row[name] += answer["usage"][name]
                found = checked(answer["text"], account)
                words = {entry.event: text for entry, text in zip(account.statements, found.told, strict=True) if text}
                parts = teller.sentences(passage.before, passage.after, passage.events, rng, opening=found.opening, told=words)
                outcome = agreed(" ".join(filter(None, parts)))
                row["told"] += len(words) + bool(found.opening)
                row["parts"] += len(account.statements) + 1
                row["passes"] += 1
                row["strays"] += len(found.strays)
                for sentence, reason in found.strays if args.strays else ():
                    print(f"  left out ({reason}): {sentence}")
                why.update(reason.split()[0] for _, reason in found.strays)
                if index % max(1, args.passes // max(1, args.show)) == 0:
                    print(f"\n{account.prompt}\n  grammar: {grammar}\n  model:   {answer['text']}\n  told:    {outcome}", flush=True)
            passages.append(Passage(passage.before, passage.after, passage.events, outcome))
            if (index + 1) % args.stretch == 0:
                wrong = contradictions(passages[-args.stretch :])
                for entry in wrong:
                    print(f"  contradiction: {entry}", flush=True)
                rate = 100 * len(wrong) / args.stretch
                count = max(1, row["passes"])
                print(
                    f"seed {seed}, passes {index + 2 - args.stretch} to {index + 1}: contradictions per 100 {rate:.1f}; by the grammar "
                    f"{1 - row['told'] / max(1, row['parts']):.1%}; strays per 100 {100 * row['strays'] / count:.0f} {dict(why)}; "
                    f"{row['seconds'] / count:.2f} s, {row['completion_tokens'] / count:.0f} tokens of {row['prompt_tokens'] / count:.0f}, "
                    f"of which {1 - row['shared'] / max(1, row['prompt_tokens']):.0%} are new and "
                    f"{(row['shared'] - row['cached_tokens']) / max(1, row['prompt_tokens']):.0%} computed again",
                    flush=True,
                )
                row.clear()
                why.clear()
        told = [passage.outcome for passage in passages]
        content = passages[-1].after
        print(f"seed {seed}: distinct-4 {distinct(told, content):.3f}, by the grammar alone {distinct(plain, content):.3f}")


def encoded(model: Any, prompt: str) -> list[int]:
    """Tokens of all that the model reads."""
    found: list[int] = model.backend.encode([(Message("system", SYSTEM), Message("user", prompt))])["input_ids"][0].tolist()
    return found


def alike(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two prompts begin with in common."""
    return next((at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), min(len(first), len(second)))


if __name__ == "__main__":
    main()
