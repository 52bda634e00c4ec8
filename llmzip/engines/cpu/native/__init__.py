"""The compiled kernels: C++ for several instruction sets, with which forward.py computes; see kernels.h."""
