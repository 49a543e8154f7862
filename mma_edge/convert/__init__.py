"""Records as other programs read them: annotation tools, subtitles, tables."""
