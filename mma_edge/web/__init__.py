"""A web server for a page of this program: where it listens, who may use it, its certificate, its thread.

Nothing here knows what the pages are for. Needs the extra `web`.
"""
