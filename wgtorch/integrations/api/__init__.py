"""Models behind the APIs of providers: clients, limits, budgets, cassettes; needs ``pip install 'wgtorch[api]'``."""

from wgtorch.integrations.api.cassette import Cassette, cassette
from wgtorch.integrations.api.client import Client, clients, close_clients
from wgtorch.integrations.api.prices import set_price
from wgtorch.integrations.api.providers.base import Provider, Providers, register_provider
from wgtorch.integrations.api.terms import set_budget
from wgtorch.integrations.api.usage import UsageMeter, Used

__all__ = [
    "Cassette",
    "Client",
    "Provider",
    "Providers",
    "UsageMeter",
    "Used",
    "cassette",
    "clients",
    "close_clients",
    "register_provider",
    "set_budget",
    "set_price",
]
