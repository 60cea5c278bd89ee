"""The arrays of network_data.c: layers whose constants are the same, as stripes of one layer are, share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from firmware_export.operators import Constant, LayerCode

Key = tuple[int, str]
"""Layer index and a constant's suffix."""


@dataclass(frozen=True)
class StoredConstants:
    """shared: each layer's constant -> the first one of the same type and bytes. stored: those first ones, in order."""

    shared: dict[Key, Key] = field(default_factory=dict)
    stored: dict[Key, Constant] = field(default_factory=dict)

    @staticmethod
    def of(codes: Sequence[LayerCode]) -> StoredConstants:
        """What the calls of a network need."""
        found = StoredConstants()
        first: dict[tuple[str, bytes], Key] = {}
        for place, code in enumerate(codes):
            for constant in code.constants:
                key = first.setdefault((str(constant.data.dtype), constant.data.tobytes()), (place, constant.suffix))
                found.shared[place, constant.suffix] = key
                if key == (place, constant.suffix):
                    found.stored[key] = constant
        return found

    def identifier(self, name: str, place: int, suffix: str) -> str:
        """The C name of a layer's constant in the network `name`."""
        owner, own_suffix = self.shared[place, suffix]
        return f"{name}_{owner}_{own_suffix}"

    def arrays(self, name: str) -> Iterator[tuple[str, Constant]]:
        """C name and array of everything that is stored."""
        return ((self.identifier(name, *key), constant) for key, constant in self.stored.items())

    def layer_bytes(self, place: int) -> int:
        """Bytes that are stored for a layer and for none before it."""
        return sum(constant.data.nbytes for (owner, _), constant in self.stored.items() if owner == place)


def stored_bytes(codes: Sequence[LayerCode]) -> int:
    """Bytes of all arrays."""
    return sum(constant.data.nbytes for constant in StoredConstants.of(codes).stored.values())
