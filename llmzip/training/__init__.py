"""`llmzip train`: from texts to a tokenizer and a model. Must not know the command line."""
