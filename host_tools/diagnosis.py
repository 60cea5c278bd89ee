"""What a person is told when nobody answers any more, or somebody else does."""

from __future__ import annotations

from host_tools.board import Transport
from host_tools.errors import LinkError
from host_tools.frame import FrameReader
from host_tools.messages import Hello


def silent_line(transport: Transport, reader: FrameReader, echoed: bool, connected: bool) -> LinkError:
    """The error for a line on which no answer came.

    Args:
        reader: what has been received.
        echoed: whether our own requests came back.
        connected: whether the board has answered before.
    """
    where = transport.description
    if connected:
        return LinkError(
            f"{where}: the board does not answer any more; power, cable, crash? Run the same command again to go on"
        )
    silence = f"{where}: no answer" if transport.baud is None else f"{where}: no answer at {transport.baud}"
    if echoed:
        return LinkError(f"{silence}, the line sends back what it is sent; is a loop-back plug or an echo in the way?")
    junk = reader.junk or reader.unfinished()
    if junk:
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in junk)
        came = f"{reader.received} bytes came that are not this link's ('{shown}')"
        return LinkError(f"{silence}; {came}: another program on the board, or other baud?")
    return LinkError(f"{silence}; other baud? Or not flashed, no power, another port?")


def check_same_board(transport: Transport, before: Hello | None, now: Hello) -> None:
    """Answers and cycles of two firmwares must not get into one result.

    Raises:
        LinkError: the firmware that answers after a reset is not the one that answered before.
    """
    if before is not None and (before.board, before.build_id) != (now.board, now.build_id):
        was, found = f"{before.board} {before.build_id}", f"{now.board} {now.build_id}"
        raise LinkError(f"{transport.description}: another firmware answers now ({found}, was {was}); start again")
