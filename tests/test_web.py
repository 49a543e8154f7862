"""Promises of the web server: who may use it, on which address, with which certificate; each attack is refused."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from conftest import failure_line, one_line

from mma_edge.cli import main
from mma_edge.errors import MMAEdgeError, SourceError, UsageError
from mma_edge.web.binding import Binding, machine_names
from mma_edge.web.certificate import Certificate, given, made
from mma_edge.web.security import Access, Page, RateLimit
from mma_edge.web.server import STOP_S, WebServer

TOKEN = "t" * 43
HTML = "<!doctype html><title>t</title><style>p{}</style><script>1</script>"


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMA_EDGE_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@contextmanager
def served(folder: Path, access: Access | None = None) -> Iterator[WebServer]:
    """A page at /, and /secret, which answers "secret"."""
    (folder / "page.html").write_text(HTML)

    async def secret(request: web.Request) -> web.Response:
        return web.Response(text="secret")

    def set_up(app: web.Application) -> None:
        app.router.add_get("/", Page(folder / "page.html").serve)
        app.router.add_get("/secret", secret)
        app.router.add_post("/secret", secret)

    server = WebServer(access or Access(Binding(port=0)), set_up)
    try:
        yield server
    finally:
        server.close()
        assert server.closed


def ask(
    server: WebServer, path: str = "/secret", method: str = "GET", body: str | bytes = "", **headers: str
) -> http.client.HTTPResponse:
    """One request, its headers exactly these; its body is read."""
    if server.link().startswith("https"):
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=ssl._create_unverified_context())
    else:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
    headers.setdefault("Host", f"127.0.0.1:{server.port}")
    connection.putrequest(method, path, skip_host=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if method == "POST":
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body.encode() if isinstance(body, str) else body)
    answer = connection.getresponse()
    answer.data = answer.read()
    answer.text = answer.data.decode(errors="replace")
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("127.0.0.1", 8765)),
        ("9000", ("127.0.0.1", 9000)),
        ("192.168.1.5", ("192.168.1.5", 8765)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:9000", ("::1", 9000)),
        ("localhost:1", ("127.0.0.1", 1)),
    ],
)
def test_a_port_an_address_or_both_say_where_to_listen(text: str, expected: tuple[str, int]) -> None:
    binding = Binding.of(text)
    assert (binding.address, binding.port) == expected


@pytest.mark.parametrize("text", ["abc", "99999", "::1:80", "1.2.3.4:", "1.2.3:80", ":", "host:80", "[::1", "1 2"])
def test_what_is_no_address_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="no place to listen") as caught:
        Binding.of(text)
    one_line(caught.value)


def test_a_port_in_use_and_a_foreign_address_are_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bindings = [Binding("127.0.0.1", taken.getsockname()[1]), Binding("192.0.2.77", 0)]
        for binding, access in zip(bindings, (Access(bindings[0]), None), strict=True):
            access = access or Access(binding, made(binding), TOKEN)
            with pytest.raises(SourceError, match="cannot listen on") as caught, served(tmp_path, access):
                pass
            one_line(caught.value)


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.5", "::"])
@pytest.mark.parametrize("token", [None, "", TOKEN])
def test_beyond_this_machine_nothing_listens_without_tls_and_token(address: str, token: str | None) -> None:
    with pytest.raises(UsageError, match="without TLS and a token"):
        Access(Binding(address), None, token)
    if not token:
        with pytest.raises(UsageError, match="without TLS and a token"):
            Access(Binding(address), Certificate(ssl.create_default_context(), "", ()), token)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::1", "192.168.1.5", "a b"]
)
def test_a_foreign_name_for_this_machine_is_refused(tmp_path: Path, host: str) -> None:
    """DNS rebinding: the browser of the user believes that the attacker's name is this machine."""
    with served(tmp_path) as server:
        for path in ("/", "/secret", "/none"):
            answer = ask(server, path, Host=host)
            assert answer.status in (400, 421) and "secret" not in answer.text
        for good in ("127.0.0.1", "localhost:1", f"[::1]:{server.port}"):
            assert ask(server, Host=good).text == "secret"


def test_behind_an_open_address_names_of_this_machine_and_addresses_are_known() -> None:
    binding = Binding("0.0.0.0")
    for host in ("192.168.1.5:8765", "[fe80::1]:8765", "localhost", *machine_names()):
        assert binding.answers_to(host), host
    assert not binding.answers_to("evil.example")
    assert binding.answers_to("cam.example.org:8765", ("*.example.org",))
    assert not binding.answers_to("a.cam.example.org", ("*.example.org",))


def test_two_names_in_one_request_are_refused(tmp_path: Path) -> None:
    with served(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"GET /secret HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
        assert plain.recv(4096).split()[1] in (b"400", b"421")


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://localhost:1", "http://127.0.0.1"])
def test_a_foreign_page_may_neither_send_nor_connect(tmp_path: Path, origin: str | None) -> None:
    with served(tmp_path) as server:
        foreign = {} if origin is None else {"Origin": origin}
        assert ask(server, method="POST", **foreign).status == 403
        # A browser names the origin of each WebSocket: what names none is a program of this machine.
        expected = 200 if origin is None else 403
        assert ask(server, Upgrade="websocket", Connection="Upgrade", **foreign).status == expected
        assert ask(server, method="POST", Upgrade="websocket", Connection="Upgrade", **foreign).status == 403
        assert ask(server, Upgrade="h2c", Connection="Upgrade", **foreign).status == 403
        assert ask(server, method="POST", Origin=f"http://127.0.0.1:{server.port}").text == "secret"


def test_without_the_token_or_with_an_old_one_there_is_the_empty_page_only(tmp_path: Path) -> None:
    binding = Binding("0.0.0.0", 0)
    with served(tmp_path, Access(binding, made(binding), TOKEN)) as server:
        own = {"Origin": f"https://127.0.0.1:{server.port}"}
        assert ask(server, "/").status == 200
        cookie = f"mma-edge-{server.port}"
        for shown in ("", f"{cookie}=", f"{cookie}={TOKEN}", f"{cookie}=\udcff"):
            headers = {"Cookie": shown.encode("utf-8", "surrogateescape").decode("latin-1")} if shown else {}
            assert ask(server, **headers).status == 401
        for old in ("", "x" * 43, TOKEN[:-1], b"\xff\xfe"):
            answer = ask(server, "/login", "POST", old, **own)
            assert answer.status == 401 and "Set-Cookie" not in answer.headers
        answer = ask(server, "/login", "POST", TOKEN, **own)
        given_cookie = answer.headers["Set-Cookie"]
        assert TOKEN not in given_cookie
        assert all(word in given_cookie for word in ("HttpOnly", "SameSite=Strict", "Secure", "Path=/"))
        assert ask(server, Cookie=given_cookie.split(";")[0]).text == "secret"
        assert TOKEN not in repr(server._access)


def test_a_program_shows_the_token_in_a_header_and_no_page_of_another_site_can(tmp_path: Path) -> None:
    binding = Binding("0.0.0.0", 0)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    with served(tmp_path, Access(binding, made(binding), TOKEN)) as server:
        right = {"Authorization": f"Bearer {TOKEN}"}
        own = {"Origin": f"https://127.0.0.1:{server.port}"}
        assert ask(server, **right).text == ask(server, method="POST", **right).text == "secret"
        assert ask(server, **right, **upgrade).text == ask(server, **right, **own, **upgrade).text == "secret"
        for foreign in ("https://evil.example", "null", "", f"http://127.0.0.1:{server.port}"):
            assert ask(server, Origin=foreign, **right, **upgrade).status == 403
        assert ask(server, Host="evil.example", **right, **upgrade).status == 421
        wrong = [TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer  {TOKEN}", "Bearer ", "Bearer \xff", f"Basic {TOKEN}", ""]
        for shown in wrong:
            assert ask(server, Authorization=shown).status == 401
            assert ask(server, Authorization=shown, **upgrade).status == 403
            assert ask(server, Authorization=shown, **own, **upgrade).status == 401
        assert ask(server, **upgrade).status == 403  # beyond this machine no origin needs the token
        assert ask(server, **own, **upgrade).status == 401


def test_without_a_token_no_header_opens_anything_more(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        for shown in ("Bearer ", "Bearer None", "Bearer"):
            assert ask(server, method="POST", Authorization=shown).status == 403


def test_a_large_body_is_refused(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        own = {"Origin": f"http://127.0.0.1:{server.port}"}
        assert ask(server, "/login", "POST", "x" * 100_000, **own).status == 413


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "//etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%5c..%5cx", "/page.html"]
)
def test_no_path_leads_to_a_file(tmp_path: Path, path: str) -> None:
    with served(tmp_path) as server:
        answer = ask(server, path)
        assert answer.status == 404 and "root:" not in answer.text


def test_the_page_runs_its_own_script_only_and_every_answer_says_so(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        policy = ask(server, "/").headers["Content-Security-Policy"]
        assert "'unsafe-inline'" not in policy and policy.count("'sha256-") == 2
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy
        for answer in (ask(server), ask(server, "/none"), ask(server, Host="evil.example")):
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Server" not in answer.headers


def test_what_is_no_http_is_survived_and_written_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with served(tmp_path) as server:
        for junk in (
            b"\x16\x03\x01\x00",
            b"GET\r\n\r\n",
            b"POST /login HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"\0" * 99,
        ):
            for _ in range(25):
                with socket.create_connection(("127.0.0.1", server.port)) as plain:
                    plain.sendall(junk)
        assert ask(server).text == "secret"
    assert capfd.readouterr() == ("", "")


def test_a_made_certificate_is_secret_kept_and_made_anew_when_others_could_read_it(own_state: Path) -> None:
    first = made(Binding("0.0.0.0"))
    path = own_state / "certificate.pem"
    assert path.stat().st_mode & 0o777 == 0o600 and own_state.stat().st_mode & 0o777 == 0o700
    assert made(Binding("0.0.0.0")).fingerprint == first.fingerprint
    path.chmod(0o644)
    second = made(Binding("0.0.0.0"))
    assert second.fingerprint != first.fingerprint and path.stat().st_mode & 0o777 == 0o600
    assert made(Binding("10.1.2.3")).fingerprint != second.fingerprint  # of another address
    assert list(own_state.iterdir()) == [path]


def test_a_browser_that_trusts_the_made_certificate_accepts_it(tmp_path: Path, own_state: Path) -> None:
    binding = Binding("0.0.0.0", 0)
    with served(tmp_path, Access(binding, made(binding), TOKEN)) as server:
        context = ssl.create_default_context(cafile=own_state / "certificate.pem")
        for name in ("127.0.0.1", "localhost", machine_names()[0]):
            with socket.create_connection(("127.0.0.1", server.port)) as plain:
                context.wrap_socket(plain, server_hostname=name).close()


def test_a_given_certificate_that_does_not_work_is_one_line(tmp_path: Path, own_state: Path) -> None:
    made(Binding())
    (tmp_path / "key.pem").write_text("no key")
    good = own_state / "certificate.pem"
    for cert, key in ((tmp_path / "none.pem", None), (tmp_path / "key.pem", None), (good, tmp_path / "key.pem")):
        with pytest.raises(MMAEdgeError, match="--tls-cert") as caught:
            given(cert, key)
        one_line(caught.value)


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMA_EDGE_STATE", str(tmp_path / "file" / "state"))
    assert main(["run", "browser:0.0.0.0:0", "--backend", "cpu", "--quiet"]) == 7
    assert "--tls-cert" in failure_line(capsys)


def test_so_many_in_a_minute_and_no_more() -> None:
    now = [0.0]
    limit = RateLimit(3, lambda: now[0])
    assert [limit.allows() for _ in range(5)] == [True] * 3 + [False] * 2
    now[0] = 59.0
    assert not limit.allows()
    now[0] = 61.0
    assert limit.allows()


@pytest.mark.parametrize("begun", [b"", b"GET /secret HTTP/1.1\r\nHost: 127"], ids=["silent", "half a request"])
def test_connections_are_counted_and_idle_ones_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr("mma_edge.web.server.MOST_CONNECTIONS", 5)
    monkeypatch.setattr("mma_edge.web.server.IDLE_S", 1.0)
    with served(tmp_path) as server, ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5)) for _ in range(8)]
        for each in opened[:5]:
            each.sendall(begun)
        assert [closed(each) for each in opened[5:]] == [True] * 3, "at once"
        with pytest.raises(OSError):
            ask(server)
        assert [closed(each) for each in opened[:5]] == [True] * 5, "after a second"
        assert ask(server).status == 200


def closed(connection: socket.socket) -> bool:
    """Whether the other side closes it, within 5 s."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_a_server_ends_in_time_with_everything_open_and_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with served(tmp_path) as server:
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        waiting[0].sendall(b"GET /secret HTTP/1.1\r\n")
        time.sleep(0.05)
        ended = threading.Thread(target=server.close)
        ended.start()
        ended.join(STOP_S)
        assert not ended.is_alive() and server.closed
        for each in waiting:
            each.close()
    assert set(threading.enumerate()) <= before
