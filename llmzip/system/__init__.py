"""What the machine offers: files, streams, processes, memory, threads, caches, compiled libraries."""
