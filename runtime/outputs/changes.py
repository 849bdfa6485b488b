"""Selection of the messages that report a change, for outputs that do not take every verdict. No I/O."""

from __future__ import annotations

from runtime.messages import BroadcastMessage, FaceState, StreamMessage, VerdictMessage


class StateChanges:
    """Filter that accepts changes of the state of streams and faces, and nothing that repeats it."""

    def __init__(self) -> None:
        self._faces: dict[tuple[str, int], FaceState] = {}

    def accepts(self, message: BroadcastMessage) -> bool:
        """Return whether a message changes the state of a stream or face.

        Args:
            message: Next published message.
        """
        if isinstance(message, StreamMessage):
            return True  # published only when something has changed
        if not isinstance(message, VerdictMessage):
            return False
        face, state = (message.stream, message.face), message.state
        previous = self._faces.pop(face, None)
        # A face that is stale may never come again, so it is not remembered.
        if state != "stale":
            self._faces[face] = state
        return state != previous
