"""Values to figures, tables and controls: the only layer below the app that knows Panel."""
