"""Engines: token ids to integer masses. They must not know texts, archives or files."""
