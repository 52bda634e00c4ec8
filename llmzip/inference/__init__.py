"""A loaded model at work: weights, tokenizer and engine together, and passes over rows of tokens."""
