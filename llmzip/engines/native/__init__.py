"""The compiled kernels: C++ for several instruction sets, with which fused.py computes; see kernels.h."""
