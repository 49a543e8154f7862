#!/usr/bin/python3
"""GStreamer's RTSP server with a clip in a loop, run by the system's Python: gst_rtsp_server.py CLIP.ts [CERTIFICATE]

Prints its port once it is ready: rtsp://127.0.0.1:PORT/clip, and with a certificate rtsps://.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtspServer  # noqa: E402

CLIP = (
    "( multifilesrc location={} loop=true ! tsdemux name=d "
    "d. ! queue ! h264parse config-interval=1 ! rtph264pay name=pay0 pt=96 "
    "d. ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97 )"
)

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(CLIP.format(sys.argv[1]))
factory.set_shared(True)
server.get_mount_points().add_factory("/clip", factory)
if len(sys.argv) > 2:
    auth = GstRtspServer.RTSPAuth()
    auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(sys.argv[2]))
    token, permissions = GstRtspServer.RTSPToken(), GstRtspServer.RTSPPermissions()
    token.set_string("media.factory.role", "anybody")
    for right in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role("anybody", right, True)
    auth.set_default_token(token)
    factory.set_permissions(permissions)
    server.set_auth(auth)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
