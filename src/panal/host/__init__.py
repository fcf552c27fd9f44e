"""This machine: programs, mounts, links, cgroups, namespaces, processes. The only code that runs programs (design D9)."""
