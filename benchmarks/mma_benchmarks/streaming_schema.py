"""What a result of `mma-bench streaming` holds."""

from __future__ import annotations

NUMBER = (int, float)
MAYBE = (int, float, type(None))
AGREEMENT = {
    "windows": int,
    "top1_agreement": NUMBER,
    "mean_abs_probability_error": NUMBER,
    "max_abs_probability_error": NUMBER,
}


def streaming_schema(summary: dict) -> dict:
    """`summary` is the schema of `stats.summarise`'s dict."""
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
