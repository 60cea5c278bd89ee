"""Packing: weights and output stages as the fast kernels of runtime/ read them, proven exact when the code is generated.

Every module holds the Python side of one kernel: what it can take, the layout of its constants, and how far its output may
reach over its input in memory.
"""

from __future__ import annotations


class Unpackable(Exception):
    """A layer does not meet the conditions of a fast kernel: which one, so that the caller can name its fallback."""
