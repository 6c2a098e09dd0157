"""Operations and models of a node, as callers see them."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from omnibase_infra.shared.client.errors import InvalidAnswerError
from omnibase_infra.shared.client.node_interface import NodeInterface, load_interface
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import GenerationDriftError, UnknownNodeError, UnknownOperationError


def test_operations_are_found_in_snake_and_in_kebab_case(interface: NodeInterface) -> None:
    assert interface.operation("quote_price") is interface.operation("quote-price")


def test_an_unknown_operation_is_answered_with_those_there_are_and_a_close_match(interface: NodeInterface) -> None:
    with pytest.raises(
        UnknownOperationError, match=r"no operation 'quote_prize'; there are: quote_price, take_note.*did you mean"
    ):
        interface.operation("quote_prize")


def test_a_node_whose_models_lack_an_operation_is_refused(interface: NodeInterface) -> None:
    with pytest.raises(GenerationDriftError, match=r"models lack take_note.*omninode generate price_quoter"):
        NodeInterface(interface.spec, {"quote_price": int}, {"quote_price": int, "take_note": int})


def test_the_generated_node_has_an_interface_under_each_of_its_names() -> None:
    for name in ("postgres_adapter", "postgres-adapter", "postgres-adapter/1", "postgres_adapter/v1_0_0"):
        assert load_interface(name).spec.worker == "postgres-adapter"
    with pytest.raises(UnknownNodeError, match="no version"):
        load_interface("postgres_adapter/7")


def test_an_answer_beyond_the_model_is_an_error_that_names_it(
    interface: NodeInterface, answers: SimpleNamespace
) -> None:
    command = envelopes.original(source="/test", event_type="x", data=envelopes.encode_data({}))
    answer = msgspec.structs.replace(
        answers.completed(command, 1), data=msgspec.Raw(b'{"price":"much"}'), dataschema="urn:omnibase:q:M:2.0.0"
    )
    with pytest.raises(InvalidAnswerError, match=r"\$\.price.*another version of the contract \(urn:omnibase:q:M:2"):
        interface.operation("quote_price").decode_response(answer)
