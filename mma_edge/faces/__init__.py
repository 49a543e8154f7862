"""Faces: find them (`detect`), follow them (`track`), cut them out (`crop`).

Import the detector and the tracker from their own modules: they load OpenCV, and a caller with ready crops only needs
`resize`.
"""

from mma_edge.faces.crop import centre_crop, crop_face, resize

__all__ = ["centre_crop", "crop_face", "resize"]
