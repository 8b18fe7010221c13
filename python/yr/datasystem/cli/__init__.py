"""dscli, the command line of datasystem: see `_main` for the commands."""
