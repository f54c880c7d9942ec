"""Nobody else's page, name or program gets in."""

import pytest

from fre_runtime.errors import UsageError
from fre_runtime.serve.guard import Access

TOKEN = "correct-horse-battery"


@pytest.fixture
def locked(client_for):
    return client_for(access=Access(TOKEN, frozenset({"linebox"}), 8080))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "192.168.0.7", "LOCALHOST", "linebox"],
)
def test_our_names_and_plain_addresses_are_known(locked, host):
    assert locked.get("/v2/health/live", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "", "[::1", "a b"],
)
def test_a_name_that_somebody_points_at_us_is_refused(client, host):
    response = client.get("/api/model", headers={"host": host})
    assert response.status_code == 421
    assert "--allow-host" in response.json()["error"]


@pytest.mark.parametrize("host", ["localhost/login?", "127.0.0.1/v2/health/live#", "x@localhost"])
def test_a_host_header_cannot_name_a_path_that_needs_no_token(locked, host):
    assert locked.get("/api/state", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("path", ["/api/score", "/v2/models/m/infer", "/login"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_web_pages_cannot_make_a_browser_post(client, path, headers):
    response = client.post(path, content=b"x", headers=headers)
    assert response.status_code == 403
    assert response.json() == {"error": "the request comes from another web page"}


def test_our_own_page_and_plain_programs_may_post(client, png):
    for headers in ({}, {"origin": "http://127.0.0.1:8080"}, {"sec-fetch-site": "same-origin"}):
        assert client.post("/api/score", content=png, headers=headers).status_code == 200


def test_without_the_token_there_is_only_the_login_page(locked, png):
    page = locked.get("/")
    assert page.status_code == 401
    assert 'name="token"' in page.text
    for path in ("/api/model", "/api/state", "/api/live.jpg", "/v2", "/v2/models/tiny", "/none"):
        assert locked.get(path).status_code == 401, path
    assert locked.post("/api/score", content=png).status_code == 401
    assert locked.get("/v2/health/ready").json() == {"ready": True}


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"]
)
def test_wrong_tokens_are_refused(locked, header):
    response = locked.get("/api/model", headers={"authorization": header.encode()})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_programs_send_the_token_as_bearer(locked):
    headers = {"authorization": f"bearer {TOKEN}"}
    assert locked.get("/api/model", headers=headers).status_code == 200


def test_people_log_in_once(locked):
    wrong = locked.post("/login", data={"token": "nonsense"})
    assert wrong.status_code == 403
    assert "set-cookie" not in wrong.headers
    right = locked.post("/login", data={"token": TOKEN})
    assert (right.status_code, right.headers["location"]) == (303, "./")
    cookie = right.headers["set-cookie"]
    assert cookie.startswith("fre-serve-8080=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert locked.get("/").status_code == 200  # the client kept the cookie
    assert locked.get("/api/model").status_code == 200


def test_a_login_of_any_length_is_bounded(locked):
    assert locked.post("/login", content=b"token=" + b"x" * 5000).status_code == 413


@pytest.mark.parametrize("token", ["short", "", "ü" * 20])
def test_tokens_that_can_be_guessed_are_refused(token):
    with pytest.raises(UsageError, match="at least 16"):
        Access(token)


def test_every_answer_forbids_to_run_or_embed_it(client, png):
    answers = [
        client.get("/"),
        client.get("/api/model"),
        client.get("/none"),
        client.post("/api/score", content=b"<script>alert(1)</script>"),
        client.get("/api/model", headers={"host": "evil.example"}),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
