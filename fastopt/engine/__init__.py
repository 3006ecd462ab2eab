"""How a rule becomes machine code: storage, the fused loop, compilation, threads.

Nothing here knows an optimizer, and no rule knows a buffer.
"""
