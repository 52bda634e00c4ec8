"""Functions for `map_batches` of Ray Data: compress, decompress and measure a column, with the model loaded once.

Ray is not imported: the objects work on any batch, in any process.
"""

from .columns import Compress, Decompress, Measure

__all__ = ["Compress", "Decompress", "Measure"]
