"""Sessions cannot be forged or reused after the token has changed, and whatever changes something must come from a page of the service."""

import time

import httpx
import pytest
from starlette.responses import PlainTextResponse

from raysp.web.access import COOKIE, HEADERS, Access, Sessions, local_path
from raysp.web.limits import MOST_BYTES, BodyLimit

TOKEN = "a-token-of-the-service"


async def reached(scope, receive, send):
    """An application that reads the whole request, as routes do."""
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await PlainTextResponse("reached")(scope, receive, send)


@pytest.fixture
def ask():
    sessions = Sessions(TOKEN)
    transport = httpx.ASGITransport(Access(BodyLimit(reached), sessions))

    async def asked(method, path, **options):
        async with httpx.AsyncClient(transport=transport, base_url="http://here:8270") as client:
            return await client.request(method, path, **options)

    def run(method, path, **options):
        import asyncio

        return asyncio.run(asked(method, path, **options))

    run.sessions = sessions
    return run


def test_only_the_right_token_lets_in(ask):
    assert ask("GET", "/api/v1/runs").status_code == 401
    assert ask("GET", "/api/v1/runs").headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", "Bearer \xff"):
        assert ask("GET", "/api/v1/runs", headers=[(b"authorization", wrong.encode("latin-1"))]).status_code == 401, wrong
    assert ask("POST", "/api/v1/runs", headers={"authorization": f"bearer {TOKEN}"}).text == "reached"
    assert ask("GET", "/api/v1/health").text == "reached"


def test_a_page_without_a_session_leads_to_the_login_and_back(ask):
    response = ask("GET", "/runs?status=done", headers={"accept": "text/html"})
    assert (response.status_code, response.headers["location"]) == (303, "/login?next=%2Fruns%3Fstatus%3Ddone")
    assert ask("GET", "/runs", headers={"accept": "application/json"}).status_code == 401


@pytest.mark.parametrize(
    ("target", "followed"),
    [("/runs?x=1", "/runs?x=1"), ("//evil.example", "/"), ("/\\evil.example", "/"), ("https://evil.example/", "/"), ("javascript:alert(1)", "/"), ("", "/"), ("/\tx", "/")],
)  # fmt: skip
def test_after_logging_in_only_pages_of_the_service_are_opened(target, followed):
    assert local_path(target) == followed


def test_a_session_is_signed_expires_and_ends_with_the_token(ask):
    session = ask.sessions.new()
    assert ask("GET", "/runs", cookies={COOKIE: session}).text == "reached"
    body, _, signature = session.rpartition(".")
    for forged in (f"{int(body.split('.')[0]) + 9}.{body.split('.')[1]}.{signature}", body, "..", "x", f"{body}.{'0' * 64}", "9" * 5000):
        assert ask("GET", "/api/v1/runs", cookies={COOKIE: forged}).status_code == 401, forged
    assert ask("GET", "/api/v1/runs", cookies={COOKIE: ask.sessions.new(time.time() - 31 * 86_400)}).status_code == 401
    assert not Sessions("another-token-here").is_valid(session)


def test_a_request_that_changes_something_must_come_from_a_page_of_the_service(ask):
    session = ask.sessions.new()
    csrf = ask.sessions.csrf(session)
    good = {"x-csrf-token": csrf, "origin": "http://here:8270", "sec-fetch-site": "same-origin"}
    assert ask("POST", "/api/v1/runs", cookies={COOKIE: session}, headers=good).text == "reached"
    for change in (
        {"x-csrf-token": ""},
        {"x-csrf-token": ask.sessions.csrf("other")},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "null"},
    ):
        assert ask("POST", "/api/v1/runs", cookies={COOKIE: session}, headers=good | change).status_code == 403, change
    assert (
        ask("GET", "/api/v1/runs", cookies={COOKIE: session}, headers={"origin": "http://evil.example"}).text == "reached"
    )  # which a page of another cannot read


def test_every_response_carries_the_security_headers(ask):
    for path in ("/api/v1/runs", "/api/v1/health", "/login"):
        headers = ask("GET", path).headers
        assert {name: headers[name] for name in HEADERS} == dict(HEADERS)
        assert headers["cache-control"] == "no-store"
    assert "unsafe" not in HEADERS["content-security-policy"]


def test_a_request_that_is_too_large_is_refused_whether_it_says_so_or_not(ask):
    def parts():
        for _ in range(3):
            yield b"x" * (MOST_BYTES // 2)

    async def streamed():
        for part in parts():
            yield part

    allowed = {"authorization": f"Bearer {TOKEN}"}
    assert ask("POST", "/api/v1/sql", content=b"x" * MOST_BYTES, headers=allowed).text == "reached"
    assert ask("POST", "/api/v1/sql", content=b"x" * (MOST_BYTES + 1), headers=allowed).status_code == 413
    assert ask("POST", "/api/v1/sql", content=streamed(), headers=allowed).status_code == 413
    assert ask("POST", "/api/v1/sql", content=b"", headers=allowed | {"content-length": "-1"}).status_code in (400, 413)
