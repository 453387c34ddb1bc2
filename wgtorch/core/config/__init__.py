"""Configs: schemas, refs, and levels from plain data and back."""
