"""Adapters inside models: PEFT makes the layers, the call says which of them count."""
