"""Requests and answers over a real broker."""

from __future__ import annotations

from omnibase_infra.shared.client.fleet_client import FleetClient


async def test_the_first_request_right_after_start_gets_its_answer(client: FleetClient, quoter: object) -> None:
    answer = await client.request("price_quoter", "quote_price", {"kind": "quote", "item": "nail", "quantity": 3})
    assert answer.payload.price == 30
    assert answer.envelope.causationid == answer.request.id
