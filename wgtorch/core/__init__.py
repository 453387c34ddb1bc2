"""Contracts and the engine that every level shares."""
