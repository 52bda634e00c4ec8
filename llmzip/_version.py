"""The versions, alone, so that a build can read them without importing anything."""

__version__ = "0.2.0.dev0"

FORMAT_VERSION = 2
"""Version of docs/format.md, in the header of every archive."""

NUMERICS_VERSION = 1
"""Version of docs/numerics.md, part of every model digest."""
