"""Pure mathematics: no state, no environments, no networks."""
