"""`llmzip train`: texts to a tokenizer and a model. Knows nothing of the command line."""
