"""The most stack that a call can use, from the machine code: every function's own use, along every chain of calls."""

from __future__ import annotations

from collections.abc import Mapping

from firmware_export.toolchain import ToolchainError
from host_tools.disassembly import Function


def own_stack(function: Function) -> int:
    """Bytes that a function itself takes at most: all that any of its instructions pushes, as if each did so once.

    Raises:
        ToolchainError: the stack pointer is lowered by a register: no bound can be told.
    """
    amounts = [i.pushed for i in function.instructions]
    if min(amounts, default=0) < 0:
        raise ToolchainError(f"{function.name} lowers the stack pointer by a computed amount; its stack has no bound")
    return sum(amounts)


def callees(function: Function, known: Mapping[int, Function]) -> tuple[set[int], bool]:
    """Addresses of the functions that a function calls or jumps to, and whether it does so through a pointer.

    A function that makes an address in itself (ADR) and jumps to a register (BX) enters one of its own loops.
    """
    inside = {i.place for i in function.instructions}
    own = any(i.kind == "address" for i in function.instructions)
    pointer = any(i.kind == "pointer" and not (own and i.mnemonic == "bx") for i in function.instructions)
    targets = {i.target for i in function.instructions if i.kind in ("call", "branch") and i.target is not None}
    return {t for t in targets - inside if t in known}, pointer


def deepest(known: Mapping[int, Function], start: int, pointers: Mapping[str, frozenset[int]]) -> int:
    """Bytes of stack that a call of the function at `start` uses at most.

    Args:
        known: disassembly.functions.
        pointers: what a call through a pointer may reach, by the name of the calling function; "" for all others. What is
            running already is not reached again: the image is taken to be free of recursion through pointers.
    Raises:
        ToolchainError: a recursion, or a function without a bound.
    """
    done: dict[int, int] = {}

    def _visit(place: int, chain: tuple[int, ...], jumps: frozenset[int]) -> tuple[int, bool]:
        """Bytes, and whether they are the same whatever the chain. jumps: places in the chain reached through a pointer."""
        if place in done:
            return done[place], True
        function, chain = known[place], (*chain, place)
        targets, indirect = callees(function, known)
        for target in sorted(targets & {*chain}):
            since = chain[chain.index(target) :]
            if not jumps & {*since[1:]}:
                names = " -> ".join(known[p].name for p in (*since, target))
                raise ToolchainError(f"{names} is a recursion; the stack has no bound")
        through = pointers.get(function.name, pointers[""]) if indirect else frozenset[int]()
        depths = [_visit(target, chain, jumps) for target in sorted(targets - {*chain})]
        depths += [_visit(target, chain, jumps | {target}) for target in sorted(through - targets - {*chain})]
        total = own_stack(function) + max((depth for depth, _ in depths), default=0)
        always = not (targets | through) & {*chain} and all(same for _, same in depths)
        if always:
            done[place] = total
        return total, always

    return _visit(start, (), frozenset())[0]
