"""What `llmzip bench` does: llmzip and other compressors on the same files, each size verified by decoding."""
