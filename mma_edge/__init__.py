"""mma-edge: audio-visual emotion recognition (MMA-DFER) from a file or a camera and a microphone.

    import mma_edge

    recognizer = mma_edge.load()
    for emotion in recognizer.stream("clip.mp4"):
        print(f"{emotion.end_s:6.2f} s  face {emotion.track_id}  {emotion.label} {emotion.confidence:.0%}")

No torch at run time. `load` is the entry; `records` reads what runs wrote; every error is a
`mma_edge.errors.MMAEdgeError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mma_edge.errors import MMAEdgeError

if TYPE_CHECKING:
    from os import PathLike

    from mma_edge.recognizer import Recognizer

__version__ = "0.1.0"
__all__ = ["MMAEdgeError", "__version__", "load", "records"]


def load(bundle: str | PathLike | None = None, backend: str = "auto", precision: str | None = None) -> Recognizer:
    """Open a bundle and make it ready to predict.

    Args:
        bundle: folder written by `mma-export`; None: the embedded default model.
        backend: "auto", "cpu", "cuda", "openvino" or "tensorrt". A named backend runs, or an error says why not.
        precision: one of the bundle's, e.g. "fp32"; None: the backend's best.

    Raises:
        BundleError: the bundle is missing, changed or of an unknown schema, or the engine fails its self-test.
        BackendError: the backend or precision cannot run here.
    """
    # Imported here so that `import mma_edge` and `mma-edge --help` do not wait for onnxruntime.
    from mma_edge.recognizer import Recognizer

    return Recognizer.open(bundle, backend, precision)


def records(path: str | PathLike) -> list[dict[str, Any]]:
    """The records of a run as flat rows: `pandas.DataFrame(mma_edge.records("talk.jsonl"))`.

    Args:
        path: a session's folder, a .jsonl or .csv of `--output` (of any version), or a .parquet of `mma-edge convert`
            or `batch`.

    Returns:
        One dict per record, all with the same keys, the columns of a CSV: start_s, end_s, track_id, x0, y0, x1, y1,
        modalities ("video+audio"), label, p_LABEL for each class, age_ms, voice, source, speaking, smoothed_s. Seconds,
        pixels and probabilities are numbers; what is not known is None. A last line that a crash has cut is left out,
        with a warning.

    Raises:
        SourceError: there is no such file, or it holds no records. DependencyError: .parquet without pyarrow.
    """
    from mma_edge.convert.rows import rows

    return rows(path)
