"""The configuration of a guest: its keys, how they are read, checked, changed and shown. Pure."""
