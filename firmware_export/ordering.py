"""The order in which operators run: of all that are possible the one that holds the fewest bytes at its worst moment.

Which orders there are grows with the branches of a network, not with its length: a state is what has run so far, and what it
holds then does not depend on the order before. The search goes through the states by their worst moment so far.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from firmware_export.graph import Graph
from firmware_export.plan import Plan, plan
from firmware_export.target import Target

STATES = 5_000
"""States that are looked at; beyond them the order is left as it is."""
GOALS = ("balanced", "ram")


def ordered(graph: Graph, goal: str) -> Graph:
    """The graph in an order that needs less memory, if its plan shows that it does; else the same graph.

    Every operator computes the same from the same: the answers are bit-identical.
    """
    if goal not in GOALS or not has_choice(graph):
        return graph
    target = Target("dsp", goal)
    best, layout = graph, plan(graph, target)
    for over in (False, True):
        order = best_order(graph, over=over)
        if order is not None and order != list(range(len(graph.nodes))):
            other = replace(graph, nodes=[graph.nodes[place] for place in order])
            found = plan(other, target)
            if _is_better(found, layout):
                best, layout = other, found
    return best


def _is_better(found: Plan, layout: Plan) -> bool:
    return found.size < layout.size and found.instructions <= layout.instructions


def has_choice(graph: Graph) -> bool:
    """Whether there is more than one order."""
    steps = _Steps.of(graph)
    done = 0
    while done != steps.all:
        ready = list(steps.ready(done))
        if len(ready) > 1:
            return True
        done |= 1 << ready[0]
    return False


def best_order(graph: Graph, *, over: bool) -> list[int] | None:
    """Node indexes in the order with the lowest peak of bytes held, the earliest of equals; None if there are too many states.

    Args:
        over: outputs are counted as written over inputs that nobody else needs, as far as those reach.
    """
    steps, tie = _Steps.of(graph), count()
    waiting: list[tuple[int, int, int, int, tuple[int, ...]]] = [(steps.held(0), 0, next(tie), 0, ())]
    seen: set[int] = set()
    while waiting and len(seen) < STATES:
        peak, _, _, done, order = heapq.heappop(waiting)
        if done == steps.all:
            return list(order)
        if done in seen:
            continue
        seen.add(done)
        for place in _worth_trying(steps, done, peak, over):
            after = done | 1 << place
            moment = max(peak, steps.moment(done, place, over=over))
            heapq.heappush(waiting, (moment, -len(order) - 1, next(tie), after, (*order, place)))
    return None


def _worth_trying(steps: _Steps, done: int, peak: int, over: bool) -> list[int]:
    """The nodes that can run next; one alone where it neither raises the peak nor holds more afterwards."""
    ready = list(steps.ready(done))
    for place in ready:
        if steps.moment(done, place, over=over) <= peak and steps.held(done | 1 << place) <= steps.held(done):
            return [place]
    return ready


@dataclass(frozen=True)
class _Steps:
    """A graph in bits: for each node its needs; for each tensor its bytes, its maker, its readers (sets of nodes as bits).

    A graph input has no maker; an output is read by a node behind all others, which never runs.
    """

    needs: tuple[int, ...]
    tensors: tuple[tuple[int, int, int], ...]
    reads: tuple[frozenset[int], ...]
    makes: tuple[frozenset[int], ...]

    @staticmethod
    def of(graph: Graph) -> _Steps:
        """The bits of a graph."""
        makers = {index: 1 << place for place, node in enumerate(graph.nodes) for index in node.outputs}
        makers |= dict.fromkeys(graph.inputs, 0)
        readers = dict.fromkeys(makers, 0)
        for place, node in enumerate(graph.nodes):
            for index in graph.activation_inputs(node):
                readers[index] |= 1 << place
        for index in graph.outputs:
            readers[index] |= 1 << len(graph.nodes)
        number = {index: place for place, index in enumerate(makers)}
        return _Steps(
            tuple(sum({makers[index] for index in graph.activation_inputs(node)}) for node in graph.nodes),
            tuple((graph.tensors[index].nbytes, makers[index], readers[index]) for index in makers),
            tuple(frozenset(number[index] for index in graph.activation_inputs(node)) for node in graph.nodes),
            tuple(frozenset(number[index] for index in node.outputs) for node in graph.nodes),
        )

    @property
    def all(self) -> int:
        """The set of all nodes."""
        return (1 << len(self.needs)) - 1

    def ready(self, done: int) -> Iterator[int]:
        """Nodes that have not run but could."""
        return (place for place, needs in enumerate(self.needs) if not done >> place & 1 and needs & ~done == 0)

    def held(self, done: int) -> int:
        """Bytes of tensors that exist and are still needed when a set of nodes has run."""
        return sum(size for size, maker, readers in self.tensors if maker & ~done == 0 and readers & ~done)

    def moment(self, done: int, place: int, *, over: bool) -> int:
        """Bytes that are held while a node runs."""
        made = sum(self.tensors[number][0] for number in self.makes[place])
        after = done | 1 << place
        dying = sum(self.tensors[number][0] for number in self.reads[place] if not self.tensors[number][2] & ~after)
        return self.held(done) + made - (min(made, dying) if over else 0)
