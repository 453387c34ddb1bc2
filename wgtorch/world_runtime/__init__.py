"""How a world runs: State, contract, conditions, the cycle, and what is kept of it."""
