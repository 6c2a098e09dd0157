"""An answer as callers get it."""

from __future__ import annotations

from typing import Any

import msgspec

from omnibase_infra.shared.core.envelope import Envelope


class Answer(msgspec.Struct, frozen=True):
    """The answer to one request.

    Attributes:
        payload: the response model.
        envelope: the answer as it came.
        request: the command it answers, as it was sent.
        seconds: from the call of `request` to the answer.
    """

    payload: Any
    envelope: Envelope
    request: Envelope
    seconds: float
