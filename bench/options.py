"""Options that are measured beside a bare step. Those that change the gradient are for ``python -m bench.training``."""

from __future__ import annotations

from typing import Any

# By name, what an optimizer is made with.
OPTIONS: dict[str, dict[str, Any]] = {
    "maximize": {"maximize": True},
    "weight_decay": {"weight_decay": 0.01},
    "bounds": {"bounds": (-1.0, 2.0)},
    "clip_value": {"clip_value": 1.0},
    "l1": {"l1": 1e-4},
    "flush_subnormals": {"flush_subnormals": True},
    "ema_decay": {"ema_decay": 0.999},
    "clip_norm": {"clip_norm": 1.0},
    "cautious": {"cautious": True},
}
