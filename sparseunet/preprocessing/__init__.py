"""From a raw case to arrays on the grid of the network, and back."""
