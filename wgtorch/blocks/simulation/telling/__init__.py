"""Telling: what happened, in words, from the facts alone."""
