"""Who may ask, under which name and with how large a body; to all others nothing is told."""

import asyncio

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("prometheus_client", reason="needs the extra serve")

from services import SECRET, Response, ask

from hrm_edge.errors import InputError
from hrm_edge.serve.settings import Limits, Token, is_local, read_token, require_token


def test_a_large_body_is_refused_by_what_it_says_and_by_what_comes(run):
    async def work(service):
        said = await ask(service, "/v1/solve", {"puzzles": "1"}, headers={"content-length": "1001"})
        parts = [b"x" * 400] * 3
        header = {"content-type": "application/json"}
        came = await ask(service, "/v1/solve", method="POST", headers=header, parts=parts)
        return said, came

    for response in run(work, limits=Limits(body=1000)):
        assert (response.status, response.headers["connection"]) == (413, "close")
        assert "1000 bytes" in response.json()["error"]


def test_a_body_that_does_not_come_is_not_waited_for(run):
    async def work(service):
        header = {"content-type": "application/json"}

        async def receive():
            await asyncio.Event().wait()

        response = Response()
        original = service.guard._bounded
        service.guard._bounded = lambda _: original(receive)
        return await ask(service, "/v1/solve", method="POST", headers=header, into=response)

    response = run(work, limits=Limits(body_seconds=0.05))
    assert (response.status, response.headers["connection"]) == (408, "close")


@pytest.mark.parametrize("path", ["/v1/bundles", "/metrics", "/v1/solve", "/v1/nothing"])
@pytest.mark.parametrize("shown", [None, "Bearer wrong", f"Basic {SECRET}", f"Bearer {SECRET}x", "Bearer é"])
def test_without_the_token_nothing_is_told(run, path, shown):
    headers = {} if shown is None else {"authorization": shown}
    response = run(lambda service: ask(service, path, headers=headers), token=Token(SECRET))
    assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")


def test_with_the_token_it_answers_and_health_needs_none(run):
    async def work(service):
        headers = {"authorization": f"Bearer {SECRET}"}
        told = [await ask(service, path) for path in ("/healthz", "/readyz", "/", "/openapi.json")]
        return [*told, await ask(service, "/v1/bundles", headers=headers)]

    found = run(work, token=Token(SECRET))
    assert [each.status for each in found] == [200] * 5
    assert found[3].json()["components"]["securitySchemes"]


def test_a_token_is_not_shown(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    token = read_token(file)
    assert SECRET not in repr(token) + str(vars(token))
    assert token.is_in(f"bearer {SECRET}".encode())
    monkeypatch.setenv("HRM_EDGE_TOKEN", "short")
    for given in (None, tmp_path / "none"):
        with pytest.raises((InputError, OSError)) as error:
            read_token(given)
        assert "short" not in str(error.value).replace("HRM_EDGE_TOKEN", "")


def test_only_this_machine_needs_no_token():
    for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.0.1"):
        assert is_local(host)
        require_token(host, None)
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", ""):
        with pytest.raises(InputError, match="--token-file"):
            require_token(host, None)
        require_token(host, Token(SECRET))


def test_another_name_for_this_machine_is_refused(run):
    hosts = frozenset({"localhost", "[::1]"})

    async def work(service):
        names = ("localhost:8000", "[::1]:9", "LOCALHOST", "evil.example", "localhost.evil.example", "")
        return [(await ask(service, "/healthz", headers={"host": name})).status for name in names]

    assert run(work, hosts=hosts) == [200, 200, 200, 421, 421, 421]


def test_every_response_has_the_security_headers_and_none_for_other_sites(run):
    async def work(service):
        paths = ("/", "/healthz", "/v1/nothing", "/metrics")
        header = {"origin": "https://evil.example"}
        found = [await ask(service, path, headers=header) for path in paths]
        return [*found, await ask(service, "/v1/solve", method="OPTIONS", headers=header)]

    for response in run(work):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert not [name for name in response.headers if name.startswith("access-control")]
