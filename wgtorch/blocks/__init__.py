"""Concrete blocks. Each room registers its own when it is imported; ``wgtorch.catalogue`` knows which room has what."""
