"""Preference objectives, one named unit each."""
