"""Live outputs: what other programs get of a run while it goes on. Each is a `mma_edge.sinks.Follower`."""
