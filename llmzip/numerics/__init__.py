"""The integers of docs/numerics.md: exact tensor operations, and the tables that they look up."""
