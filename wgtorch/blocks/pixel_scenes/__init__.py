"""Pixel art of scenes by a plan: the painter, its codec and its describer.

``drawing`` draws training pictures by rules; nothing imports it when a world paints.
"""
