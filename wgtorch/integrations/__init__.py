"""Other libraries as blocks; each needs its extra."""
