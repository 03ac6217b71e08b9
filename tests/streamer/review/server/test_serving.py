"""Where the review is served: addresses, who can reach them, certificates."""

import shutil
import socket
import ssl
import subprocess
import threading

import httpx
import pytest

pytest.importorskip("fastapi", reason="the review's server needs the package fastapi")
pytest.importorskip("uvicorn", reason="the review's server needs the package uvicorn")

from engines.base import LeukostreamError, UsageError
from streamer.review.server.app import build_app
from streamer.review.server.serving import (
    Address,
    Certificate,
    _Server,
    address_of,
    check_certificate,
    check_reach,
    listening,
    page_url,
    server_config,
)
from tests.streamer.review.server.fake_desk import FakeDesk, FakeFields, make_cells

CERTIFICATE = Certificate("cert.pem", "key.pem")


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("localhost:8080", "localhost", 8080, True),
        ("[::1]:8080", "::1", 8080, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("0.0.0.0:8443", "0.0.0.0", 8443, False),
        ("lab7:65535", "lab7", 65535, False),
        ("[::]:1", "::", 1, False),
    ],
)
def test_addresses(text, host, port, loopback):
    address = address_of(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)


@pytest.mark.parametrize("text", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "::1:8080", "a:70000"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError, match=r"^--bind: got"):
        address_of(text)


def test_other_machines_need_encryption_or_consent():
    everywhere = Address("0.0.0.0", 0)
    with pytest.raises(UsageError, match=r"--tls-cert and --tls-key"):
        check_reach(everywhere, None, insecure=False)
    check_reach(everywhere, CERTIFICATE, insecure=False)
    check_reach(everywhere, None, insecure=True)
    check_reach(Address("127.0.0.1", 0), None, insecure=False)


def test_names_of_this_machine():
    assert set(Address("127.0.0.1", 0).names()) == {"localhost", "127.0.0.1", "::1"}
    assert socket.gethostname() in Address("0.0.0.0", 0).names()
    assert Address("0.0.0.0", 0).is_everywhere
    assert page_url(Address("::1", 0), 80, "t", "http") == "http://[::1]:80/?token=t"


def test_an_address_in_use_is_one_line():
    with listening(Address("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LeukostreamError, match=f"^--bind 127.0.0.1:{port}: got 'Address already in use'"):
            listening(Address("127.0.0.1", port))


def test_files_that_are_no_certificate_are_one_line(tmp_path):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate")
    for cert in (str(wrong), str(tmp_path / "missing.pem")):
        with pytest.raises(UsageError, match=r"^--tls-cert .* expected a certificate") as caught:
            check_certificate(Certificate(cert, cert))
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="a certificate is made by the program openssl")
def test_a_page_over_tls(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*made, "-keyout", key, "-out", cert, *subject], check=True, capture_output=True)
    certificate = Certificate(str(cert), str(key))
    check_certificate(certificate)
    desk = FakeDesk(make_cells(5))
    app = build_app(desk, FakeFields(), token="right", names=("localhost", "127.0.0.1"), scheme="https")
    bound = listening(Address("127.0.0.1", 0))
    started = threading.Event()
    server = _Server(server_config(app, certificate), started.set)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        assert started.wait(20)
        base = f"https://127.0.0.1:{bound.getsockname()[1]}"
        trusted = ssl.create_default_context(cafile=str(cert))
        with httpx.Client(base_url=base, verify=trusted, headers={"Authorization": "Bearer right"}) as client:
            assert client.get("/api/v1/sessions").status_code == 200
            body = {"class": "monocyte", "reviewer": "AB"}
            own, other = {"Origin": base}, {"Origin": base.replace("https", "http")}
            assert client.post("/api/v1/cells/1/class", json=body, headers=other).status_code == 403
            assert client.post("/api/v1/cells/1/class", json=body, headers=own).status_code == 200
    finally:
        server.should_exit = True
        thread.join()
        bound.close()
        desk.close()
