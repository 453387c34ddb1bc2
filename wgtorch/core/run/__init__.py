"""One run: its context, the executor, and what surrounds the call of a node."""
