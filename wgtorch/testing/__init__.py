"""For users' own tests: a check of everything a block is to keep to, and providers of models that answer as they are told.

``pytest_plugins = ["wgtorch.testing.fixtures"]`` in a ``conftest.py`` makes fixtures of them.
"""

from wgtorch.testing.block_checks import BlockReport, check_block
from wgtorch.testing.replies import Reply, Seen, refusal
from wgtorch.testing.scripted_server import ScriptedServer

__all__ = ["BlockReport", "Reply", "ScriptedServer", "Seen", "check_block", "refusal"]
