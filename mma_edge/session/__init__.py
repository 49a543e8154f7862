"""A session: what is kept of a run, in one folder. docs/sessions.md has its format field by field."""
