"""A canvas figure fed by binary columns."""
