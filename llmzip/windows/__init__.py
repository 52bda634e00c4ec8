"""Equal-Info windows and packets: pieces of text that decode alone from a fixed number of bits. Must not know files."""
