"""Equal-Info windows and packets: texts cut so that each piece decodes alone from a fixed number of bits."""
