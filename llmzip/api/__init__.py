"""The Python API after PEP 784: one-shot functions, files, and compressors for data that arrives in pieces.

The package adds no policy of its own: it checks arguments and hands them to `codec`. `compress` describes the arguments
of everything that writes, `decompress` those of everything that reads.
"""
