"""Engines turn token ids into integer masses; nothing here knows text, files or the container."""
