"""Preference workbench: edit preference data and see at once what an objective makes of it."""

__version__ = "0.1.0"
