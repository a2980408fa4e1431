"""Pure functions on tensors: rewards, ranking, information, dependence, divergence, intervals."""
