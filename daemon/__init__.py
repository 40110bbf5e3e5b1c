"""Who runs what, when; the command line."""
