"""Stand-ins for what users' tests cannot have: providers of models that answer as they are told, on this machine."""

from wgtorch.testing.replies import Reply, Seen, refusal
from wgtorch.testing.scripted_server import ScriptedServer

__all__ = ["Reply", "ScriptedServer", "Seen", "refusal"]
