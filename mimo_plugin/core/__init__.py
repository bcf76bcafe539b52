"""The base of all other parts: errors, atomic files, artifacts, tables, the machine."""
