"""Levels behind HTTP: a small server for any of them, and nodes that stand for what runs at another endpoint.

The server needs ``wgtorch[serve]``; so does a node that calls one.
"""
