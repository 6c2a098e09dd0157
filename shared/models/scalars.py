"""Scalar types of payload fields with the bounds of their wire and database types, so that a bad value is refused early."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

from msgspec import Meta

SmallInt: TypeAlias = Annotated[int, Meta(ge=-(2**15), le=2**15 - 1)]
Integer: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
BigInt: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

# PostgreSQL cannot store NUL in text; refused here, one record fails instead of a batch.
Text: TypeAlias = Annotated[str, Meta(pattern=r"^[^\x00]*$")]

AwareDateTime: TypeAlias = Annotated[datetime, Meta(tz=True)]
NaiveDateTime: TypeAlias = Annotated[datetime, Meta(tz=False)]
