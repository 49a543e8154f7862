"""Class names of the data sets, in the order of their class numbers."""

DFEW_LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
MAFW_LABELS = (*DFEW_LABELS, "contempt", "anxiety", "helplessness", "disappointment")
