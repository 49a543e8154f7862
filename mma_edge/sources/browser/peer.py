"""The WebRTC end of one visitor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from fractions import Fraction
from functools import partial

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtcpSrPacket

from mma_edge.sources.browser.intake import Intake, SenderClock
from mma_edge.sources.network.clock import Track
from mma_edge.sources.picture import DecodedPicture, Orientation
from mma_edge.sources.tracks import to_float
from mma_edge.web.visitors import BadMessageError

_CLOSE_S = 0.5
"""Longest time for a peer's own farewell."""
_UPRIGHT = Orientation()


class Peer:
    """Receives picture and sound until it is closed. To be used in the server's thread."""

    def __init__(self, intake: Intake, audio: bool, on_end: Callable[[], None]) -> None:
        """Without `audio` the sound is thrown away. `on_end` is called when the connection is lost."""
        self._intake, self._audio, self._on_end = intake, audio, on_end
        # Without a list of its own aiortc would ask a server of the internet for this machine's address.
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connection.on("track", self._on_track)
        self._connection.on("connectionstatechange", self._on_state)
        self._tasks: list[asyncio.Task] = []
        self._times: SenderClock | None = None
        self._tick_s: dict[Track, Fraction] = {}  # of a track's stamps; known from its first frame on

    async def answer(self, sdp: str) -> str:
        """The answer to an offer; BadMessageError where it cannot be understood. To be closed in any case."""
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            receivers = {each.kind: each.receiver for each in self._connection.getTransceivers()}
            kinds: list[Track] = [kind for kind in receivers if kind == "video" or self._audio]
            self._times = SenderClock(self._intake.begin(one_clock=len(kinds) < 2), kinds)
            for kind in kinds:
                _tap_reports(receivers[kind], partial(self._report, kind))
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:  # aiortc raises whatever its parsers come across
            raise BadMessageError("an offer that aiortc does not understand") from error
        return self._connection.localDescription.sdp

    async def close(self) -> None:
        """Free everything. `on_end` is not called any more."""
        self._on_end = lambda: None
        for task in self._tasks:
            task.cancel()
        self._connection.remove_all_listeners()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._connection.close(), _CLOSE_S)

    def _on_state(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._on_end()

    def _on_track(self, track: MediaStreamTrack) -> None:
        # aiortc keeps all that is not taken: a track that nobody reads fills the memory.
        self._tasks.append(asyncio.ensure_future(self._read(track)))

    async def _read(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):  # its end
            try:
                while True:
                    frame = await track.recv()
                    if self._times is None or frame.time is None:
                        continue
                    self._tick_s[track.kind] = frame.time_base
                    if track.kind == "video":
                        picture = DecodedPicture(frame, _UPRIGHT)
                        self._intake.picture(picture, self._times.stamp_s("video", frame.time))
                    elif self._audio:
                        stamp_s = self._times.stamp_s("audio", frame.time)
                        self._intake.sound(to_float(frame), frame.sample_rate, stamp_s)
            finally:
                self._on_end()

    def _report(self, track: Track, ticks: int, sender_s: float) -> None:
        if track in self._tick_s:
            self._times.report(track, float(ticks * self._tick_s[track]), sender_s)


def _tap_reports(receiver: RTCRtpReceiver, report: Callable[[int, float], None]) -> None:
    """Call `report(ticks, sender_s)` for each sender report: aiortc itself uses them for statistics only. `ticks` is
    the PTS that a frame of that time would have.

    The names are aiortc's own (1.15, 1.16). Where a version has them no more, no report comes, and arrival aligns
    picture and sound.
    """
    mapper = getattr(receiver, "_RTCRtpReceiver__timestamp_mapper", None)
    handle = getattr(receiver, "_handle_rtcp_packet", None)
    if not (handle and hasattr(mapper, "_origin") and hasattr(mapper, "_last")):
        return

    async def tapped(packet: object) -> None:
        if isinstance(packet, RtcpSrPacket) and mapper._origin is not None:
            # RTP times are counters of 32 bits that begin anywhere.
            ahead = (packet.sender_info.rtp_timestamp - mapper._last + 2**31) % 2**32 - 2**31
            report(mapper._last - mapper._origin + ahead, packet.sender_info.ntp_timestamp / 2**32)
        await handle(packet)

    receiver._handle_rtcp_packet = tapped
