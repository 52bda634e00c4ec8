"""The exact engine's forward pass by Triton kernels on CUDA devices."""
