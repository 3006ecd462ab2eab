"""Arrays of a class of somebody else's."""

import numpy as np


class Stubborn(np.ndarray):
    """An array that nothing can be assigned to, as one with units may be."""

    def __setitem__(self, key, value):
        raise TypeError("no units")
