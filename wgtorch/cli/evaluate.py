"""``wgtorch evaluate``: the registered measures of a world's history."""

from __future__ import annotations

import argparse


def command(args: argparse.Namespace) -> int:
    """Prints the table, or JSON; 1 where an evaluator failed, with the traceback."""
    import sys
    import traceback

    from wgtorch.cli.pages import tell_faults
    from wgtorch.cli.target import trust_in
    from wgtorch.evaluation import evaluate_folder
    from wgtorch.evaluation.registry import EvaluatorRegistry

    found = evaluate_folder(args.path, args.only, trust=trust_in(args.trust))
    if args.only:  # else each has a row
        tell_faults(EvaluatorRegistry)
    print(found.to_json() if args.json else found)
    for measure in found.failed:
        print("".join(traceback.format_exception(measure.error)), file=sys.stderr)
    return 1 if found.failed else 0
