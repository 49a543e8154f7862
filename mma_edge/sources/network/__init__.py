"""Streams of the network as a source: RTSP, RTMP, HTTP with HLS, UDP, TCP."""
