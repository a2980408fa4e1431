"""Flat training loops over preferences."""
