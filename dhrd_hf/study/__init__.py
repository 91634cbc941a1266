"""A grid of training runs, paired across settings, and what its table says."""
