"""The workbench as objects of a notebook: `open` gives a bench, and a bench has views."""
