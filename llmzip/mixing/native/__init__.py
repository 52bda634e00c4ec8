"""C++ sources of the mixer, and the library that is built of them."""
