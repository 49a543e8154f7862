"""Raw videos to face crops, sound and annotation lists."""
