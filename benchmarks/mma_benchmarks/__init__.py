"""Measuring a bundle on this very machine: latency, accuracy, and pages that say under which conditions."""
