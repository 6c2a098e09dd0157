"""From a contract to a node: plan (pure data) → emitters → writer. Never imported by a running worker."""

from typing import Final

# Written into generation.json; raised when the generator's output changes on purpose.
GENERATOR_VERSION: Final = "1"
