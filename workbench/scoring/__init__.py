"""Models and what they say: loading, tokenising, log-probabilities, attribution, storing."""
