"""From a model's name to integer weights and a tokenizer: Hub, checkpoints, conversion. Must not know engines."""
