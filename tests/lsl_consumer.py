"""A consumer in a process of its own: prints each sample of the first stream with the name that it is given."""

from __future__ import annotations

import json
import sys

import pylsl

if __name__ == "__main__":
    (stream,) = pylsl.resolve_byprop("name", sys.argv[1], 1, 20)
    inlet = pylsl.StreamInlet(stream, max_buflen=1)
    inlet.open_stream(20)
    print("open", flush=True)
    while True:
        sample, stamp_s = inlet.pull_sample(60)
        if sample is not None:
            print(json.dumps([sample, stamp_s]), flush=True)
