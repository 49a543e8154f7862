"""Sessions made up for the tests of reports, and for trying one: python tests/made_sessions.py DIR --minutes 60"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

DFEW = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
SIZE = (640, 360)
FPS = 5


def record(end_s: float, label: str, /, **changes: object) -> dict:
    """One record of face 1 whose model is sure of `label`: 0.7, the others share the rest."""
    probabilities = dict.fromkeys(DFEW, 0.3 / 6) | {label: 0.7} if label in DFEW else dict.fromkeys(DFEW, 1 / 7)
    return {
        "start_s": round(end_s - 4, 3),
        "end_s": round(end_s, 3),
        "track_id": 1,
        "box": [100.0, 80.0, 200.0, 180.0],
        "modalities": ["video", "audio"],
        "voice": 0.5,
        "label": label,
        "probabilities": probabilities,
        "age_ms": 40.0,
        "source": "camera:0",
        **changes,
    }


def write_lines(path: Path, values: Sequence[dict]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def write_session(
    folder: Path,
    records: Sequence[dict],
    marks: Sequence[dict] = (),
    events: Sequence[dict] = (),
    sources: dict | None = None,
    labels: Sequence[str] = DFEW,
    **manifest: object,
) -> Path:
    """A session's folder as the recorder leaves it; `manifest` replaces fields of it."""
    folder.mkdir(parents=True)
    last_s = max((each["end_s"] for each in records), default=0.0)
    one = {
        "live": True, "size": list(SIZE), "first_s": 0.0, "last_s": last_s, "frames": round(25 * last_s),
        "dropped_frames": 0, "sound_s": last_s, "dropped_sound_s": 0.0, "reopened": 0, "error": None, "video": None,
        "video_start_s": None, "sound_in_video": False, "video_dropped": 0,
    }  # fmt: skip
    given = sources if sources is not None else {"camera:0": {}}
    whole = {
        "kind": "mma-edge session",
        "schema": 1,
        "name": folder.name,
        "state": "ended",
        "started": "2026-11-22T10:00:00.000+00:00",
        "ended": "2026-11-22T11:00:00.000+00:00",
        "run_s": last_s,
        "versions": {"mma_edge": "0.1.0", "python": "3.11.7", "platform": "Linux"},
        "model": {
            "name": "mma-dfer-nano", "labels": list(labels), "precision": "fp32", "backend": "cpu",
            "details": "onnxruntime 1.31", "temperature": {"both": 1.41, "video": 2.14, "audio": 1.19},
            "licence": "research only",
        },
        "options": {
            "window_s": 4.0, "hop_s": 0.5, "voice_gate": 0.1, "abstain_below": 0.3, "smooth_s": None, "streaming": None
        },
        "sources": {name: one | changes for name, changes in given.items()},
        "privacy": {
            "video": any(changes.get("video") for changes in given.values()), "faces": "as they are", "sound": False,
            "statement": "Kept: numbers about faces and voices, and a video with the faces as they are; no sound.",
        },
        **manifest,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
    for name, lines in (("records", records), ("marks", marks), ("events", events)):
        write_lines(folder / f"{name}.jsonl", lines)
    return folder


def write_video(path: Path, seconds: float, size: tuple[int, int] = SIZE, fps: int = FPS) -> Path:
    """Grey with two bright heads that move each second, when there is a key frame."""
    import av
    import cv2

    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", fps
        for second in range(round(seconds)):
            image = np.full((height, width, 3), 60, np.uint8)
            for face in (1, 2):
                cx, cy, r = face_place(face, second, size)
                cv2.circle(image, (cx, cy), r, (224, 172 + 20 * face, 130), -1)
                for side in (-1, 1):
                    cv2.circle(image, (cx + side * r // 3, cy - r // 4), r // 8, (30, 30, 30), -1)
                cv2.rectangle(image, (cx - r // 3, cy + r // 3), (cx + r // 3, cy + r // 2), (150, 30, 40), -1)
            for _ in range(fps):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def face_place(face: int, time_s: float, size: tuple[int, int] = SIZE) -> tuple[int, int, int]:
    """Centre and radius of a face in the video at a time."""
    width, height = size
    sway = np.sin(time_s / 7 + face)
    return int(width * (0.3 * face - 0.05 + 0.05 * sway)), int(height * (0.5 + 0.05 * sway)), int(height * 0.18)


def made_records(seconds: float, faces: int = 2, seed: int = 0) -> list[dict]:
    """Answers every half second: moods that drift, bursts, a gap, the second face later, voices in turns."""
    rng = np.random.default_rng(seed)
    found = []
    mood = rng.normal(0, 1, (faces, len(DFEW)))
    mood[:, DFEW.index("neutral")] += 2
    pull = mood.copy()
    for step in range(8, int(2 * seconds) + 1):
        end_s = step / 2
        if 0.55 < end_s / seconds < 0.58:
            continue  # a gap
        for face in range(faces):
            if face and (end_s < 0.1 * seconds or 0.3 < end_s / seconds < 0.4):
                continue
            if rng.random() < 0.02:
                pull[face] = rng.normal(0, 1, len(DFEW)) * 1.5
                pull[face, DFEW.index("neutral")] += 1
            mood[face] += 0.15 * (pull[face] - mood[face]) + rng.normal(0, 0.25, len(DFEW))
            logits = 1.5 * mood[face]
            if rng.random() < 0.004:
                logits[DFEW.index("surprise")] += 6
            p = np.exp(logits - logits.max())
            p = np.maximum(p / p.sum(), 1e-6)
            label = DFEW[int(p.argmax())] if p.max() >= 0.3 else "uncertain"
            speaks = int(end_s // 20) % (faces + 1)
            heard = speaks == face or (speaks == faces and rng.random() < 0.3)
            cx, cy, r = face_place(face + 1, end_s)
            found.append(
                {
                    "start_s": end_s - 4, "end_s": end_s, "track_id": face + 1,
                    "box": [cx - r * 0.8, cy - r, cx + r * 0.8, cy + r * 1.1],
                    "modalities": ["video", "audio"] if heard else ["video"],
                    "voice": 0.6 if heard else 0.0, "label": label,
                    "probabilities": {name: round(float(v), 6) for name, v in zip(DFEW, p, strict=True)},
                    "age_ms": 40.0, "source": "camera:0", "speaking": 0.7 if heard else 0.2,
                }
            )  # fmt: skip
        if 0.3 < end_s / seconds < 0.4 and step % 2:
            found.append(found[-1] | {"track_id": None, "box": None, "modalities": ["audio"], "voice": 0.8})
    return found


def make(folder: Path, minutes: float, faces: int = 2, video: tuple[int, int] | None = None) -> Path:
    """A session with marks, events and, where its size is given, a video."""
    seconds = 60 * minutes
    texts = ("question 1", "laughs", "shows the film <1>", '"don\'t"', "question 2", "phone rings", "break", "end")
    marks = [
        {
            "time": "2026-11-22T10:00:00+00:00", "run_s": seconds * (n + 1) / 9,
            "times_s": {"camera:0": seconds * (n + 1) / 9}, "key": str(n + 1), "text": text,
        }
        for n, text in enumerate(texts)
    ]  # fmt: skip
    gap = {"time": "", "run_s": 0.0, "source": "camera:0"}
    events = [
        gap | {"kind": "gap", "start_s": 0.55 * seconds, "end_s": 0.58 * seconds, "text": "no picture: cable pulled"},
        gap | {"kind": "drop", "start_s": 0.7 * seconds, "end_s": 0.72 * seconds, "text": "41 frames dropped"},
        gap | {"kind": "notice", "start_s": None, "end_s": None, "text": "camera:0: the microphone came back"},
    ]
    source = {"video": "video-1.mp4", "video_start_s": 0.0, "last_s": seconds} if video else {"last_s": seconds}
    write_session(folder, made_records(seconds, faces), marks, events, {"camera:0": source})
    if video:
        write_video(folder / "video-1.mp4", seconds, video)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--faces", type=int, default=2)
    parser.add_argument("--size", default="640x360", help="of the video; 0x0: none")
    chosen = parser.parse_args()
    width, height = map(int, chosen.size.split("x"))
    make(chosen.folder, chosen.minutes, chosen.faces, (width, height) if width else None)
