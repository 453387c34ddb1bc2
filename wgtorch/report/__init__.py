"""What a world has lived through, on one page: ``world.report(path)`` and ``wgtorch report``."""
