"""omnibase_infra: a Kafka event-driven worker fleet that is generated from contracts.

Only the import root lives here; `shared`, `topics` and `workers` are links to the folders at the top of the repository.
"""
