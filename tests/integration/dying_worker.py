"""`omninode run` of a transactional worker that is killed at a given moment of its third transaction that holds answers.

The moment is the environment variable DIES, made of a method of the client and when: `commit after`.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from omnibase_infra.shared.cli.main import main
from omnibase_infra.shared.kafka.transaction_client import TransactionClient

_LAST = 3


def die_at(method: str, moment: str) -> None:
    """Let the process be killed before or after the client's method."""
    produce, step = TransactionClient.produce, getattr(TransactionClient, method)
    transactions = 0

    def counted(client: TransactionClient, records: Any, *rest: Any) -> None:
        nonlocal transactions
        transactions += bool(records)
        produce(client, records, *rest)

    def deadly(client: TransactionClient, *arguments: Any) -> None:
        if moment == "before" and transactions == _LAST:
            os.kill(os.getpid(), signal.SIGKILL)
        step(client, *arguments)
        if transactions == _LAST:
            os.kill(os.getpid(), signal.SIGKILL)

    TransactionClient.produce = counted  # type: ignore[method-assign,assignment]  # of this process alone
    setattr(TransactionClient, method, deadly)


if __name__ == "__main__":
    die_at(*os.environ["DIES"].split())
    main()
