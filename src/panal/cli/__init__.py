"""panal: the command line."""
