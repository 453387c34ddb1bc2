"""A world as a simulation: places, people, things, threads and a ledger of events, told and painted from facts that travel as data."""
