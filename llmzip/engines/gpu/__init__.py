"""The exact forward pass on CUDA devices by Triton kernels; see backend.py. Only the kernels' modules import Triton."""
