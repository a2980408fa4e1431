"""Tokens coloured by a signed score."""
