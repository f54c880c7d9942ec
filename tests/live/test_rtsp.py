"""A line on a real RTSP stream: RTP/JPEG (RFC 2435) over TCP, cut and silenced on purpose."""

import struct
import threading

import pytest

from fre_runtime.live.backoff import Backoff
from fre_runtime.live.captures import open_capture
from fre_runtime.live.line import Line
from fre_runtime.live.options import LineOptions
from tests.live.conftest import jpeg, score_by_brightness

SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=line\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 26\r\na=control:track\r\n"
)


def rtp_packets(data: bytes, number: int) -> list[bytes]:
    """A 64 x 48 JPEG as interleaved RTP packets."""
    tables, scan = b"", b""
    at = 2
    while not scan:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker == 0xDB:  # each table after a byte with its number
            tables += b"".join(body[i + 1 : i + 65] for i in range(0, len(body), 65))
        if marker == 0xDA:
            scan = data[at + 2 + length : -2]
        at += 2 + length
    packets = []
    for start in range(0, len(scan), 1000):
        chunk = scan[start : start + 1000]
        head = struct.pack(">B3sBBBB", 0, start.to_bytes(3, "big"), 1, 255, 8, 6)
        if start == 0:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        last = start + 1000 >= len(scan)
        rtp = struct.pack(
            ">BBHII", 0x80, 26 | (0x80 if last else 0), (number * 8 + start // 1000) & 0xFFFF,
            number * 3600, 7,
        ) + head + chunk  # fmt: skip
        packets.append(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)
    return packets


@pytest.fixture
def rtsp_camera(serve):
    """``rtsp_camera(play)``: ``play(send, number)`` sends numbered pictures after PLAY."""

    def start(play):
        def handle(connection, number):
            file = connection.makefile("rwb")
            while True:
                lines = []
                while (line := file.readline()) not in (b"\r\n", b""):
                    lines.append(line.decode().strip())
                if not lines:
                    return
                method = lines[0].split()[0]
                sequence = next(one for one in lines if one.lower().startswith("cseq"))
                extra, body = "", ""
                if method == "DESCRIBE":
                    extra, body = "Content-Type: application/sdp\r\n", SDP
                if method == "SETUP":
                    extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                file.write(
                    f"RTSP/1.0 200 OK\r\n{sequence}\r\n{extra}"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                file.flush()
                if method == "PLAY":
                    sent = iter(range(1, 1 << 30))

                    def send(value, sent=sent):
                        for packet in rtp_packets(jpeg(value), next(sent)):
                            connection.sendall(packet)

                    play(send, number)
                    return

        return serve(handle)

    return start


def test_rtsp_is_scored_and_opened_again_when_cut_or_silent(rtsp_camera, recorder, stop):
    def play(send, number):
        for i in range(40):
            send(100 + 20 * number + i % 3)
            server.sleep(0.01)
        if number == 1:
            server.sleep(20)

    server = rtsp_camera(play)
    capture = open_capture(f"rtsp://user:secret@127.0.0.1:{server.port}/line")
    options = LineOptions(queue=50, no_frame=0.5)
    line = Line("line", score_by_brightness, capture, [recorder], options, Backoff(0.01, 0.02))
    thread = threading.Thread(target=line.run, args=(stop,), daemon=True)
    thread.start()
    # Each connection has its own brightness: cut after the first, silent after the second.
    recorder.wait(lambda events: any((event.score or 0) * 255 > 136 for event in events), 60)
    stop.set()
    thread.join(20)
    stale = [event.error for event in recorder.events if event.state == "stale"]
    assert "broke off after" in stale[0]
    assert "no frame for 0.5 s" in stale[1]
    assert line.counters.scored > 40
    assert line.counters.waiting == 0
    assert all("secret" not in f"{event.source}{event.error}" for event in recorder.events)
