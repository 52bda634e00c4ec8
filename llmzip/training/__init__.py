"""`llmzip train`: makes language models; may use every other part of the package, and no part uses it."""
