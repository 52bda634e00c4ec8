"""The Python API, after PEP 784: one-shot functions, files, and compressors for data that comes in pieces."""
