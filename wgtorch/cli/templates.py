"""``wgtorch templates``: what can be built by name, and with which parameters."""

from __future__ import annotations

import argparse


def command(args: argparse.Namespace) -> int:
    """Lists the templates, their summaries, and their parameters with defaults."""
    from wgtorch.core.config.template import templates

    for template in templates(args.level):
        print(f"{template.level}/{template.name}: {template.summary}")
        for name, parameter in template.parameters.items():
            print(f"    {name}{'' if parameter.default is parameter.empty else f' = {parameter.default!r}'}")
    return 0
