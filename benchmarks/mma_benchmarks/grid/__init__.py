"""Latency over a grid of engines."""
