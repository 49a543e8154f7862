"""An RTSP server on 127.0.0.1 that fails on purpose: H.264 and G.711 over TCP, with or without what aligns the two."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS, SIZE, SOUND_HZ = 25, (160, 120), 8000
_FAST = {"preset": "ultrafast", "tune": "zerolatency", "g": "25"}
FLASH_S, BEEP_S = 0.08, 0.08
_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=t\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track0\r\n"
)
_SDP_SOUND = "m=audio 0 RTP/AVP 0\r\na=control:track1\r\n"


def picture(time_s: float) -> np.ndarray:
    """White in the first two frames of each second, else black: RGB."""
    return np.full((SIZE[1], SIZE[0], 3), 235 if time_s % 1.0 < FLASH_S - 1e-6 else 16, np.uint8)


def beep(start_s: float, count: int, rate_hz: int) -> np.ndarray:
    """A tone in the first 80 ms of each second: float32 (count,)."""
    t = start_s + np.arange(count) / rate_hz
    return np.where(t % 1.0 < BEEP_S, 0.5 * np.sin(2 * np.pi * 1000 * t), 0).astype(np.float32)


def write_clip(path: Path | str, seconds: float, sound: bool = True, paced: bool = False, **options: object) -> None:
    """A film of flashes and beeps that begin together; `paced` writes each second in a second."""
    start_s = time.monotonic()
    with av.open(str(path), "w", **options) as container:
        video = container.add_stream(
            "libx264", rate=FPS, options={"preset": "ultrafast", "tune": "zerolatency", "g": "25"}
        )
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        audio = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        for number in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(picture(number / FPS), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
            if audio:
                block = av.AudioFrame.from_ndarray(beep(number / FPS, 1920, 48000)[None], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 48000, 1920 * number, Fraction(1, 48000)
                container.mux(audio.encode(block))
            if paced:
                time.sleep(max(0.0, start_s + number / FPS - time.monotonic()))
        for stream in filter(None, (video, audio)):
            container.mux(stream.encode(None))


def _encoded(seconds: float) -> tuple[list[tuple[float, list[bytes]]], list[tuple[float, bytes]]]:
    """Time and NAL units of each picture; time and G.711 bytes of each 20 ms."""
    video = av.CodecContext.create("libx264", "w")
    video.width, video.height, video.pix_fmt, video.time_base = *SIZE, "yuv420p", Fraction(1, FPS)
    video.options = _FAST
    pictures = []
    for number in range(round(seconds * FPS)):
        frame = av.VideoFrame.from_ndarray(picture(number / FPS), format="rgb24")
        frame.pts = number
        data = b"".join(map(bytes, video.encode(frame))).replace(b"\0\0\0\1", b"\0\0\1")
        pictures.append((number / FPS, [unit for unit in data.split(b"\0\0\1") if unit]))
    audio = av.CodecContext.create("pcm_mulaw", "w")
    audio.sample_rate, audio.layout, audio.format = SOUND_HZ, "mono", "s16"
    sound = []
    for number in range(round(50 * seconds)):
        wave = (beep(number / 50, 160, SOUND_HZ) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SOUND_HZ, 160 * number
        sound.append((number / 50, b"".join(map(bytes, audio.encode(frame)))))
    return pictures, sound


class RTSPServer:
    """Sends a clip of so many seconds, again and again, to everybody who asks; use it in a `with`."""

    def __init__(
        self,
        seconds: float = 4.0,
        sound: bool = True,
        sound_late_s: float = 0.0,  # the sound track begins later than the picture
        first_report_s: float | None = None,  # when the first RTCP sender reports come; None: never
        info: bool = True,  # RTP-Info in the answer to PLAY
        answer: str = "",  # to DESCRIBE, instead of a stream: "401 Unauthorized"
        mute: bool = False,  # accepts and says nothing
        speed: float = 1.0,  # so many seconds of the clip are sent in one
        ends: str = "",  # the connection after the answer to this method, such as "SETUP"
        stalls_s: float = float("inf"),  # each connection sends so many seconds of the clip and then nothing more
    ) -> None:
        self._pictures, self._sound = _encoded(seconds)
        self._seconds, self._with_sound, self._sound_late_s = seconds, sound, sound_late_s
        self._first_report_s, self._info, self._answer, self.mute = first_report_s, info, answer, mute
        self._speed, self._ends, self._stalls_s = speed, ends, stalls_s
        self._clients: list[socket.socket] = []
        self.frozen = threading.Event()  # set: sends nothing, keeps the connections
        self.plays = 0
        self._closed = threading.Event()
        self._listener: socket.socket | None = None
        self.port = 0
        self.listen()

    def listen(self) -> None:
        """Begin to accept, the second time at the port of the first."""
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/clip"

    def drop(self) -> None:
        """End all connections and accept no more, as a server that is killed."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End all connections, as a link that breaks."""
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()
        self._clients.clear()

    def __enter__(self) -> RTSPServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed.set()
        self.drop()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _requests(self, client: socket.socket) -> Iterator[tuple[str, str, str]]:
        """Method, URL and CSeq of each request; the client's RTCP, framed by $, is passed over."""
        data = b""
        while True:
            if data[:1] == b"$" and len(data) >= 4 and len(data) >= 4 + (size := struct.unpack(">H", data[2:4])[0]):
                data = data[4 + size :]
            elif data[:1] != b"$" and b"\r\n\r\n" in data:
                head, data = data.split(b"\r\n\r\n", 1)
                lines = head.decode().split("\r\n")
                sequence = next(line.split(":")[1].strip() for line in lines if line.lower().startswith("cseq"))
                yield (*lines[0].split()[:2], sequence)
            else:
                received = client.recv(4096)
                if not received:
                    return
                data += received

    def _serve(self, client: socket.socket) -> None:
        if self.mute:
            return
        bases, lock = (random.getrandbits(31), random.getrandbits(31)), threading.Lock()
        with contextlib.suppress(OSError):
            for method, url, sequence in self._requests(client):
                status = self._answer if method == "DESCRIBE" and self._answer else "200 OK"
                head, body = f"RTSP/1.0 {status}\r\nCSeq: {sequence}\r\nSession: 1;timeout=60\r\n", ""
                if method == "OPTIONS":
                    head += "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif status.startswith("401"):
                    head += 'WWW-Authenticate: Basic realm="camera"\r\n'
                elif method == "DESCRIBE" and status == "200 OK":
                    body = _SDP + (_SDP_SOUND if self._with_sound else "")
                    head += f"Content-Base: {url}/\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif method == "SETUP":
                    track = int(url[-1])
                    head += f"Transport: RTP/AVP/TCP;unicast;interleaved={2 * track}-{2 * track + 1}\r\n"
                elif method == "PLAY" and self._info:
                    tracks = [f"url={url}track{track};seq=1;rtptime={base}" for track, base in enumerate(bases)]
                    head += f"RTP-Info: {','.join(tracks)}\r\n"
                with lock:
                    client.sendall(f"{head}\r\n{body}".encode())
                if method == self._ends:
                    client.close()
                    return
                if method == "PLAY":
                    self.plays += 1
                    threading.Thread(target=self._play, args=(client, bases, lock), daemon=True).start()

    def _play(self, client: socket.socket, bases: tuple[int, int], lock: threading.Lock) -> None:
        """Send both tracks at their own pace, round by round."""
        start_s, wall_s, sequences = time.monotonic(), time.time(), [1, 1]
        next_report_s = self._first_report_s
        # Without RTP-Info and reports a receiver takes the first packet of each track for the beginning.
        first_sound_s = self._sound_late_s

        def send(channel: int, data: bytes) -> None:
            with lock:
                client.sendall(b"$" + struct.pack(">BH", channel, len(data)) + data)

        def send_packet(track: int, time_s: float, payload: bytes, last: bool) -> None:
            rate, kind = ((90000, 96), (SOUND_HZ, 0))[track]
            stamp = (bases[track] + round(time_s * rate)) & 0xFFFFFFFF
            flags = kind | (128 if last and not track else 0)
            send(
                2 * track, struct.pack(">BBHII", 128, flags, sequences[track] & 0xFFFF, stamp, 0x1111 + track) + payload
            )
            sequences[track] += 1

        def send_reports(time_s: float) -> None:
            ntp = wall_s + time_s + 2208988800
            for track, rate in enumerate((90000, SOUND_HZ)):
                stamp = (bases[track] + round(time_s * rate)) & 0xFFFFFFFF
                parts = (128, 200, 6, 0x1111 + track, int(ntp), int(ntp % 1 * 2**32), stamp, 0, 0)
                send(2 * track + 1, struct.pack(">BBHIIIIII", *parts))

        due = [(time_s, 0, units) for time_s, units in self._pictures]
        due += [(time_s, 1, data) for time_s, data in self._sound] if self._with_sound else []
        due.sort(key=lambda entry: entry[:2])
        offset_s = 0.0
        with contextlib.suppress(OSError):
            while not self._closed.is_set():
                for at_s, track, data in due:
                    time_s = offset_s + at_s
                    self._closed.wait(max(0.0, start_s + time_s / self._speed - time.monotonic()))
                    while (self.frozen.is_set() or time_s > self._stalls_s) and client.fileno() >= 0:
                        if self._closed.wait(0.02):
                            break
                    if next_report_s is not None and time_s >= next_report_s:
                        send_reports(time_s)
                        next_report_s += 1.0
                    if track and time_s >= first_sound_s:
                        send_packet(1, time_s, data, True)
                    for index, unit in enumerate(data if not track else []):
                        _send_unit(send_packet, time_s, unit, index == len(data) - 1)
                offset_s += self._seconds


def _send_unit(send_packet: object, time_s: float, unit: bytes, last: bool) -> None:
    """One NAL unit as an RTP packet, or in several fragments (FU-A)."""
    if len(unit) < 1400:
        send_packet(0, time_s, unit, last)
        return
    parts = [unit[1:][at : at + 1400] for at in range(0, len(unit) - 1, 1400)]
    for number, part in enumerate(parts):
        end = number == len(parts) - 1
        header = bytes([(unit[0] & 0x60) | 28, (unit[0] & 31) | (0x80 if number == 0 else 0) | (0x40 if end else 0)])
        send_packet(0, time_s, header + part, last and end)
