"""What can go wrong between the computer and the board."""

from __future__ import annotations

from recipes.artifacts import PipelineError


class LinkError(PipelineError):
    """The port, the line or the board: missing, busy, silent, another program or model on it, gone."""

    exit_code = 5
