"""``wgtorch templates``: what can be built by name, and with which parameters."""

from __future__ import annotations

import argparse


def command(args: argparse.Namespace) -> int:
    """Lists the templates with their parameters, or tells everything of one."""
    from wgtorch.cli.pages import show, tell_faults, template_page
    from wgtorch.cli.target import template_key
    from wgtorch.core.config.template import TemplateRegistry, templates
    from wgtorch.core.errors import UnknownNameError, suggest

    tell_faults(TemplateRegistry)
    if args.name is not None:
        key = template_key(args.name if args.level is None or "/" in args.name else f"{args.level}/{args.name}")
        if key is None:
            raise UnknownNameError(f"there is no template {args.name!r}; {suggest(args.name, TemplateRegistry.names())}")
        show(template_page(TemplateRegistry.get(key)))
        return 0
    for template in templates(args.level):
        print(f"{template.level}/{template.name}: {template.summary}")
        for name, parameter in template.parameters.items():
            print(f"    {name}{'' if parameter.default is parameter.empty else f' = {parameter.default!r}'}")
    return 0
