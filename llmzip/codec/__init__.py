"""Bytes to archives and back: frames, the method of each, and their rows of tokens; knows no files or options."""
