"""One back end a file, named as in the configuration; base.py is the interface."""
