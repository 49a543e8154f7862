"""A consumer in a process of its own: prints each sample of the first stream with the name that it is given."""

from __future__ import annotations

import json
import sys

CONFIG = """
[ports]
IPv6 = disable
[multicast]
ResolveScope = machine
AddressesOverride = {127.0.0.1}
[lab]
KnownPeers = {127.0.0.1}
[log]
level = -3
"""
"""Streams stay on this machine."""

if __name__ == "__main__":
    import pylsl

    (stream,) = pylsl.resolve_byprop("name", sys.argv[1], 1, 20)
    inlet = pylsl.StreamInlet(stream, max_buflen=1)
    inlet.open_stream(20)
    print("open", flush=True)
    while True:
        sample, stamp_s = inlet.pull_sample(60)
        if sample is not None:
            print(json.dumps([sample, stamp_s]), flush=True)
