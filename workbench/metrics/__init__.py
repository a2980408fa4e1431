"""Pure functions: rewards, ranking, information, dependence, divergence, prediction, intervals."""
