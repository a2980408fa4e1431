"""The served application and the command line."""
