"""Colours of lines, boxes and bars, one for each class; those of areas are mma_edge/report/palette.py's."""

LINE_CLASSES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
LINES = {
    "light": ("#a19112", "#5097ec", "#7a848e", "#922a10", "#ca8060", "#1c5343", "#762d86", "#c2418c"),
    "dark": ("#e9d997", "#89b3e6", "#808488", "#d74e42", "#e69122", "#5fedda", "#b450ec", "#f5a3c7"),
    "picture": ("#e9d997", "#89b3e6", "#8a8e92", "#d74e42", "#e69122", "#5fedda", "#b450ec", "#f5a3c7"),
}
"""Of LINE_CLASSES, and one more: of lines on a light and on a dark page, where each stands out (3:1), and of boxes and
bars on a picture. The dashboard's page.css and picture.js have the same; tests/test_report_numbers.py holds it."""
