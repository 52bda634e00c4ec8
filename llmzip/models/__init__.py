"""A name to integer weights and a tokenizer: the Hub, checkpoints, families, conversion. Computes no masses."""
