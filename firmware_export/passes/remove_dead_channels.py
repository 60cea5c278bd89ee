"""Removes channels that are constant or that nothing depends on, whatever the model is fed.

Forward, the values that each element can reach; backward, the channels that can change an output. A constant channel
becomes part of the next layer's bias where every window sees the same of it: at a padded border only if it is the padding's
value too. Trained weights hold many such channels: behind a ReLU whole branches of them.
"""

from __future__ import annotations

from firmware_export.graph import Graph
from firmware_export.operators import operator_of
from firmware_export.passes._constant_operands import with_constant_operands
from firmware_export.passes._intervals import intervals
from firmware_export.passes._liveness import liveness
from firmware_export.passes._slicing import sliced

MAX_MACS = 2**31
"""Models with more are left as they are: the analysis costs about twice a float64 inference, and no board runs them."""


def remove_dead_channels(graph: Graph) -> Graph:
    """The graph without them; every tensor keeps at least one channel, inputs and outputs of the model keep all."""
    if sum(operator_of(node).macs(graph, node) for node in graph.nodes) > MAX_MACS:
        return graph
    reach = intervals(graph)
    live = liveness(graph, reach)
    folded = with_constant_operands(graph, reach, live)
    return sliced(folded, reach, live if folded is graph else liveness(folded, reach))
