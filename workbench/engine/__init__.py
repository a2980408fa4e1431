"""From pairs, models and settings to values; long work on one worker thread."""
