"""The learning rate of every step."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Linear warm-up to `peak`, then half a cosine to 0 (Loshchilov & Hutter 2017, without restarts).

    Args:
        step: 0 to steps - 1.
        warmup_steps: step warmup_steps - 1 is the first at `peak`; 0 starts at the peak.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * done))
