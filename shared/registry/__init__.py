"""What a worker is built from: the container of services, and the nodes that exist."""
