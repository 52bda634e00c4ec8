"""What the machine offers: files, streams, processes, memory, threads, caches and compiled libraries.

The package must not know compression, archives, models or the command line.
"""
