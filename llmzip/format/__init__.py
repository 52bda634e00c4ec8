"""The bytes of an archive, as docs/format.md defines them. Needs only the standard library."""
