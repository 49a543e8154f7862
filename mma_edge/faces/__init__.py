"""Faces: find them (`detect`), follow them (`track`), cut them out (`crop`).

Detector and tracker load OpenCV, so they are imported from their own modules: who has ready crops needs `resize` alone.
"""

from mma_edge.faces.crop import centre_crop, crop_face, resize

__all__ = ["centre_crop", "crop_face", "resize"]
