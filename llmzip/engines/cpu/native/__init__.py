"""The compiled kernels in C++, once for each instruction set; kernels.h explains them."""
