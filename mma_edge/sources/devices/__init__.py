"""Devices that deliver pictures: cameras of the system, GStreamer pipelines."""
