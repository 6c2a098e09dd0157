"""The only place that knows a topic name: the grammar, the fleet's catalogue, and how a cluster is brought to it."""
