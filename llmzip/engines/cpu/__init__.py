"""The exact engine's forward pass by compiled kernels on the CPU."""
