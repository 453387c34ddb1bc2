"""Data of trainings, by registered name."""

from wgtorch.train.data.base import Batches, Data, Order

__all__ = ["Batches", "Data", "Order"]
