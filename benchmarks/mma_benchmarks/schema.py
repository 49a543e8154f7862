"""What each kind of result holds: a key and its type, as `mma_benchmarks.result` checks them.

A tuple of types admits any of them, a list any number of its item, {"*": x} any keys; `Maybe(x)` is x or null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Maybe:
    """A place that may hold null instead."""

    schema: object


PERCENTILES = (5, 25, 50, 75, 95, 99)


def summarise(values: Sequence[float]) -> dict[str, float | int]:
    """Count, mean, extremes and percentiles, in the unit of the values.

    Percentiles interpolate linearly between the sorted values; p99 of fewer than 100 values
    therefore lies between the two largest.

    Returns:
        count, mean, min, p5, p25, p50, p75, p95, p99, max.
    """
    array = np.asarray(values, np.float64)
    summary: dict[str, float | int] = {"count": len(array), "mean": float(array.mean()), "min": float(array.min())}
    summary |= {f"p{rank}": float(np.percentile(array, rank)) for rank in PERCENTILES}
    summary["max"] = float(array.max())
    return summary


SCHEMA_VERSION = 1
NUMBER = (int, float)
MAYBE = (int, float, type(None))
SUMMARY = {"count": int} | dict.fromkeys(("mean", "min", *(f"p{rank}" for rank in PERCENTILES), "max"), NUMBER)
AGREEMENT = {
    "windows": int,
    "top1_agreement": NUMBER,
    "mean_abs_probability_error": NUMBER,
    "max_abs_probability_error": NUMBER,
}


def streaming_schema(summary: dict) -> dict:
    """`summary` is the schema of `summarise`'s dict."""
    return {
        "settings": {"window_s": NUMBER, "repeat": int, "hops_s": [NUMBER], "max_ages_s": [MAYBE]},
        "sources": [{"name": str, "windows": int}],  # windows with a face, at the shortest hop
        # One entry per hop and way of computing. max_age_s: of rolling, null is without a bound.
        "ways": [
            {
                "mode": str,  # "full", "exact" or "rolling"
                "hop_s": NUMBER,
                "max_age_s": MAYBE,
                # Of updates one window and one hop after the face appeared, and later: before, most frames are new.
                "update_ms": summary,
                "updates_per_s": NUMBER,
                "speedup": NUMBER,  # mean time of full / mean time of this
                "stem_frames": NUMBER,  # mean per update
                "layer_frames": NUMBER,
                # Beside the whole graph on the same frames, all updates.
                "max_abs_logit_difference": NUMBER,
                **AGREEMENT,
            }
        ],
        # The grid's frames beside those of frame_indices, both through the whole graph, at the default hop.
        "sampling": AGREEMENT,
        "refused": (str, type(None)),  # why the bundle does not offer rolling
    }


LATENCY = {
    "source": {"name": str, "media_s": NUMBER, "video": bool, "audio": bool, "width": int, "height": int},
    "settings": {"repeat": int, "warmup": int, "iterations": int, "window_s": NUMBER, "hop_s": NUMBER},
    # Seconds: importing the libraries, opening the bundle (hashes, session, self-test), opening source and detector.
    "startup": {"import_s": NUMBER, "load_s": NUMBER, "open_s": NUMBER},
    # One entry per repeat. real_time_factor: seconds of media per second of wall time.
    "runs": [{"wall_s": NUMBER, "real_time_factor": NUMBER, "frames": int, "frames_per_s": NUMBER, "answers": int}],
    # Per stage: one entry per call, all repeats together; per_run_ms is the sum over a run, share of its wall time.
    "stages": {"*": {"per_call_ms": SUMMARY, "per_run_ms": NUMBER, "share": NUMBER}},
    "other": {"per_run_ms": NUMBER, "share": NUMBER},
    "predict_ms": SUMMARY,
    "age_ms": SUMMARY,
    "peak_memory_mib": NUMBER,
}
ACCURACY = {
    "settings": {"sets": [str], "limit": (int, type(None)), "batch": int},
    "conditions": [
        {
            "set": str,
            "condition": str,  # "video and audio", "video only" or "audio only": what the model was given
            "description": str,
            "num_clips": int,
            "uar": MAYBE,
            "war": MAYBE,
            "loss": MAYBE,  # mean negative log-likelihood, nats
            "ece": MAYBE,
            "recall": [MAYBE],
            "confusion": [[int]],  # rows true, columns predicted
            "predict_s": NUMBER,
        }
    ],
}
TRAINING = {
    "settings": {
        "model": str,
        "image_size": int,
        "batch_size": int,
        "steps": int,
        "warmup": int,
        "rounds": int,
        "threads": int,
        "device": str,
        "parameters": int,
        "trainable": int,
    },
    "runs": [
        {
            "name": str,
            "description": str,
            "step_s": SUMMARY,  # all rounds together
            "cpu_s": SUMMARY,
            "clips_per_s": NUMBER,
            "speedup": NUMBER,  # to the setting "plain"
            "peak_memory_mib": NUMBER,
            "memory_ratio": NUMBER,  # to the setting "plain"
            "loss": NUMBER,  # of one clip after the steps, nats
        }
    ],
}
GRID = {
    # turn_s: how long a turn of a cell aims to take; calls before those that count, in each turn.
    "settings": {"rounds": int, "turn_s": NUMBER, "uncounted_calls": int},
    # One entry per model: its bundle (or where its random weights come from) and the work of one clip.
    "subjects": [
        {
            "name": str,
            "origin": str,
            "manifest_sha256": str,
            "image_size": int,
            "labels": [str],
            "flops_per_clip": MAYBE,  # of the PyTorch model, a multiplication and an addition are two
        }
    ],
    # The fastest matrix product of this run, by torch; billions of operations per second.
    "peaks": [{"device": str, "precision": str, "gflops": NUMBER, "size": int}],
    "cells": [
        {
            "subject": str,
            "runner": str,
            "precision": str,
            "batch": int,
            "device": str,
            "details": str,
            "call_ms": SUMMARY,  # one call with `batch` clips, arrays of the processor in and out
            "clips_per_s": NUMBER,
            "load_cold_s": MAYBE,  # the first opening, caches empty; null: there are none, or they were full
            "load_warm_s": NUMBER,
            "peak_memory_mib": NUMBER,  # resident, of the process that was timed
            "gpu_memory_mib": MAYBE,
            "energy_j_per_clip": MAYBE,
            "energy_meter": str,
            "reference": str,  # the runner that speedup and logit_difference are against
            "speedup": MAYBE,
            "logit_difference": MAYBE,  # largest absolute, on the same clips
            "gflops": MAYBE,
            "peak_share": MAYBE,  # of the peak at this precision and device
        }
    ],
    "refused": [{"subject": str, "runner": str, "precision": str, "batch": int, "why": str}],
}
ACCURACY_GRID = {
    "settings": ACCURACY["settings"],
    "cells": [
        {
            "subject": str,
            "manifest_sha256": str,
            "labels": [str],
            "runner": str,
            "precision": str,
            "details": str,
            "conditions": ACCURACY["conditions"],
        }
    ],
    "refused": GRID["refused"],
}
RESULTS = {
    "latency": LATENCY,
    "accuracy": ACCURACY,
    "training": TRAINING,
    "grid": GRID,
    "accuracy-grid": ACCURACY_GRID,
    "streaming": streaming_schema(SUMMARY),
}
SCHEMA = {
    "schema_version": int,
    "kind": str,
    "created": str,
    "command": str,
    "machine": {
        "name": str,
        "cpu": str,
        "cores_logical": int,
        "cores_usable": int,
        "instruction_sets": [str],
        "memory_gib": NUMBER,
        "os": str,
        "python": str,
        "libraries": {"*": str},
        "gpus": [str],
        "load_average": NUMBER,
    },
    "bundle": {
        "name": str,
        "manifest_sha256": str,
        "labels": [str],
        "image_size": int,
        "precision": str,
        "backend": str,
        "engine": str,
    },
    "results": dict,
}
