"""The bytes of archives and packets, as docs/format.md defines them. Must not know models, torch or numpy."""
