"""A live run for an hour, whose camera, link and server fail all the time."""
