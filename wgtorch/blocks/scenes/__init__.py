"""Small models of one small world: painted scenes, their captions, and their descriptions.

``scene`` is the vocabulary, ``drawing`` draws training pictures (needs Pillow and numpy; never imported from here).
"""
