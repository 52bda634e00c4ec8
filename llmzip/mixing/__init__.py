"""The mixer, which turns masses and statistics into binary decisions, and the range coder, which turns them into bytes.

Must not know models, texts, files or the command line.
"""
