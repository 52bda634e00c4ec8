"""`llmzip bench`: verified measurements of llmzip and other compressors. Knows nothing of the command line."""
