"""Recovery data: a Reed-Solomon code over the blocks of a file, which mends damage. Knows no texts or models."""
