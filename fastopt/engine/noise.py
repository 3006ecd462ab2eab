"""Random bits that are a function of a seed, a step and an element: a hash, so that nothing is drawn or remembered.

So they are the same for every number of threads, for arrays one by one and in one buffer, and in a run that goes on. The
functions run on scalars in compiled code and on whole NumPy arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint32
from numba.extending import intrinsic

from fastopt.engine.jitable import implementation_of, jitable

u32, u64 = np.uint32, np.uint64

# Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014: SplitMix64.
GOLDEN, FIRST, SECOND = u64(0x9E3779B97F4A7C15), u64(0xBF58476D1CE4E5B9), u64(0x94D049BB133111EB)
THIRTY, TWENTY_SEVEN, THIRTY_ONE, HALF = u64(30), u64(27), u64(31), u64(32)

# A step between elements by the golden ratio; then one round of lowbias32 (Wellons, "Prospecting for hash functions", 2018).
STRIDE, ODD, SIXTEEN, FIFTEEN = u32(0x9E3779B1), u32(0x21F0AAAD), u32(16), u32(15)

# Its powers make noise for several arrays of that of an element (Steele and Vigna, "Computationally easy, spectrally good
# multipliers for congruential pseudorandom number generators", 2022).
SALT = u32(0x93D765DD)


def product(x: Any, y: Any) -> Any:
    """The lower 32 bits of the product of two uint32."""
    return x * y


@intrinsic
def _product(typing_context: Any, x: Any, y: Any) -> Any:
    return uint32(uint32, uint32), lambda context, builder, signature, arguments: builder.mul(*arguments)


@implementation_of(product)
def _compiled_product(x: Any, y: Any) -> Any:
    return lambda x, y: _product(x, y)


@jitable
def mixed(x: Any) -> Any:
    """A uint64 in which each bit depends on all bits of another one."""
    x = u64(x + GOLDEN)
    x = u64(u64(x ^ u64(x >> THIRTY)) * FIRST)
    x = u64(u64(x ^ u64(x >> TWENTY_SEVEN)) * SECOND)
    return u64(x ^ u64(x >> THIRTY_ONE))


@jitable
def key_of(seed: Any, step: Any) -> Any:
    """What tells the noise of a step from that of others, as a uint64."""
    return mixed(u64(mixed(u64(seed)) ^ u64(step)))


@jitable
def noise(key: Any, i: Any) -> Any:
    """32 random bits for element `i`, given as a uint32."""
    return noise_from(key, product(i, STRIDE))


@jitable
def noise_from(key: Any, place: Any) -> Any:
    """The same, given the product of the element with the stride."""
    x = u32(place ^ u32(key))
    x = product(u32(x ^ u32(x >> SIXTEEN)), ODD)
    return u32(u32(x ^ u32(x >> FIFTEEN)) ^ u32(key >> HALF))


def salt_of(array: int) -> Any:
    """What noise is multiplied with for one of some arrays. The bits that come first in the product are the best."""
    return u32(pow(int(SALT), array + 1, 2**32))
