"""How fast a step is: against the streaming limit of the machine, in-place NumPy, PyTorch, and optax under JAX's jit.

``python -m bench`` prints tables, ``python -m bench.startup`` what comes before the first step, and
``pytest bench --benchmark-only`` runs the same cases under pytest-benchmark.
"""
