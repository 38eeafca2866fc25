"""Sign-in by OpenID Connect, against a real issuer with real keys."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from graph.domain import Role
from graph.errors import SettingsInvalid, SignInUnavailable
from server.access.callers import Caller
from server.access.entry import check_exposure
from server.access.signin import NoRole, SignIn, role_names, sign_in_of
from tests.unit.issuer import AUDIENCE, Issuer, open_issuer
from tests.unit.serving import make_settings, open_api

NOW = int(time.time())


class Ticks:
    """A timer that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with open_issuer() as opened:
        yield opened


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


def sign_in(issuer: Issuer, ticks: Ticks, **given: Any) -> SignIn:
    roles = {role.value: role for role in Role}
    told = {"issuer": issuer.url, "audience": AUDIENCE, "role_claim": "roles", "roles": roles, **given}
    return SignIn(timer=ticks, **told)


async def test_a_good_token_speaks_for_its_user(issuer: Issuer, ticks: Ticks) -> None:
    found = await sign_in(issuer, ticks).caller(issuer.token())

    assert found == Caller(name="ada (sign-in)", role=Role.OPERATOR, id="oidc:u-17")


STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"exp": NOW - 120}, id="expired"),
        pytest.param({"exp": None}, id="without an end"),
        pytest.param({"nbf": NOW + 3600}, id="not valid yet"),
        pytest.param({"iat": NOW + 3600}, id="made in the future"),
        pytest.param({"aud": "another"}, id="for another audience"),
        pytest.param({"aud": None}, id="for no audience"),
        pytest.param({"iss": "https://evil.example"}, id="of another issuer"),
        pytest.param({"sub": None}, id="of nobody"),
        pytest.param({"header": {"kid": "unknown"}}, id="an unknown key"),
        pytest.param({"key": STRANGER}, id="signed by somebody else"),
        pytest.param({"header": {"alg": "PS256"}}, id="another algorithm than the key's"),
    ],
)
async def test_a_token_that_is_not_good_is_nobodys(
    issuer: Issuer, ticks: Ticks, changed: dict[str, Any]
) -> None:
    assert await sign_in(issuer, ticks).caller(issuer.token(**changed)) is None


async def test_a_token_without_a_signature_is_nobodys(issuer: Issuer, ticks: Ticks) -> None:
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    bare = jwt.encode(claims, "", algorithm="none", headers={"kid": "first"})
    stripped = issuer.token().rpartition(".")[0] + "."

    for token in (bare, stripped, bare + "x", "a.b.c", "..", "." * 20_000):
        assert await sign_in(issuer, ticks).caller(token) is None


async def test_the_public_key_is_no_shared_secret(issuer: Issuer, ticks: Ticks) -> None:
    """The classic confusion: an HMAC with what everybody can read as its key."""
    public = issuer.keys["first"].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    issuer.more_keys = [{"kty": "oct", "kid": "shared", "k": _base64(b"s" * 32), "alg": "HS256"}]
    body = issuer.token().split(".")[1]

    for kid, key in (("first", pem), ("shared", b"s" * 32)):
        head = _base64(json.dumps({"alg": "HS256", "kid": kid}).encode())
        mac = hmac.digest(key, f"{head}.{body}".encode(), "sha256")
        assert await sign_in(issuer, ticks).caller(f"{head}.{body}.{_base64(mac)}") is None


async def test_a_key_that_is_no_name_is_nobodys(issuer: Issuer, ticks: Ticks) -> None:
    _, body, mac = issuer.token().split(".")
    head = _base64(json.dumps({"alg": "RS256", "kid": 7}).encode())

    assert await sign_in(issuer, ticks).caller(f"{head}.{body}.{mac}") is None


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def test_a_rotated_key_is_taken_up_and_the_old_one_dropped(issuer: Issuer, ticks: Ticks) -> None:
    door, old = sign_in(issuer, ticks), issuer.token()
    assert await door.caller(old) is not None

    issuer.rotate("second")
    new = issuer.token()
    assert await door.caller(new) is None  # read again, but not at every unknown name
    ticks.now += 31

    assert await door.caller(new) is not None
    assert await door.caller(old) is None


async def test_a_key_that_was_taken_back_stops_working(issuer: Issuer, ticks: Ticks) -> None:
    door, token = sign_in(issuer, ticks), issuer.token()
    assert await door.caller(token) is not None
    issuer.rotate("second")
    assert await door.caller(token) is not None

    ticks.now += 601

    assert await door.caller(token) is None


async def test_made_up_keys_do_not_hammer_the_issuer(issuer: Issuer, ticks: Ticks) -> None:
    door = sign_in(issuer, ticks)
    for number in range(50):
        await door.caller(issuer.token(header={"kid": f"made-up-{number}"}))

    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_a_silent_issuer(issuer: Issuer, ticks: Ticks) -> None:
    door, token = sign_in(issuer, ticks), issuer.token()
    issuer.up = False
    with pytest.raises(SignInUnavailable):
        await door.caller(token)
    issuer.up = True
    ticks.now += 31
    assert await door.caller(token) is not None

    issuer.up = False
    ticks.now += 3600
    assert await door.caller(token) is not None  # the keys that are known serve on
    ticks.now += 24 * 3600
    with pytest.raises(SignInUnavailable):
        await door.caller(token)


@pytest.mark.parametrize(
    "configuration",
    [
        pytest.param({"issuer": "https://evil.example"}, id="another issuer"),
        pytest.param({"jwks_uri": "http://127.0.0.2:1/keys"}, id="keys on another host"),
        pytest.param({"jwks_uri": None}, id="no keys"),
    ],
)
async def test_a_configuration_that_leads_elsewhere_is_not_followed(
    issuer: Issuer, ticks: Ticks, configuration: dict[str, Any]
) -> None:
    issuer.configuration = configuration

    with pytest.raises(SignInUnavailable):
        await sign_in(issuer, ticks).caller(issuer.token())
    assert "/keys" not in issuer.asked


async def test_keys_where_the_settings_say(issuer: Issuer, ticks: Ticks) -> None:
    door = sign_in(issuer, ticks, jwks_url=f"{issuer.url}/keys")

    assert await door.caller(issuer.token()) is not None
    assert issuer.asked == ["/keys"]


@pytest.mark.parametrize(
    ("claim", "claims", "role"),
    [
        pytest.param("roles", {"roles": ["viewer", "admin"]}, Role.ADMIN, id="the highest counts"),
        pytest.param("roles", {"roles": "viewer"}, Role.VIEWER, id="one word"),
        pytest.param("realm.roles", {"realm": {"roles": ["admin"]}}, Role.ADMIN, id="inside an object"),
        pytest.param("https://x/roles", {"https://x/roles": ["admin"]}, None, id="dots are a path"),
        pytest.param("roles", {"roles": ["boss"]}, None, id="an unknown word"),
        pytest.param("roles", {"roles": []}, None, id="none"),
        pytest.param("roles", {"roles": None}, None, id="no claim"),
        pytest.param("roles", {"roles": [["admin"], {"a": 1}, 7]}, None, id="no words"),
        pytest.param("realm.roles", {"realm": "admin"}, None, id="a word where an object should be"),
    ],
)
async def test_the_role_is_what_the_claim_says(
    issuer: Issuer, ticks: Ticks, claim: str, claims: dict[str, Any], role: Role | None
) -> None:
    door = sign_in(issuer, ticks, role_claim=claim)
    if role is None and claim != "https://x/roles":
        with pytest.raises(NoRole):
            await door.caller(issuer.token(**claims))
    elif role is not None:
        found = await door.caller(issuer.token(**claims))
        assert found is not None
        assert found.role is role


@pytest.mark.parametrize(
    ("given", "word"),
    [
        pytest.param({"oidc_audience": None}, "AIRMEDIC_OIDC_AUDIENCE", id="no audience"),
        pytest.param({"oidc_issuer": "http://id.example.com"}, "https://", id="keys in the clear"),
        pytest.param({"oidc_issuer": "id.example.com"}, "https://", id="no address"),
        pytest.param({"oidc_issuer": "https://[id"}, "OIDC_ISSUER", id="half an address"),
        pytest.param({"oidc_jwks_url": "https://[id"}, "OIDC_JWKS_URL", id="half an address of the keys"),
        pytest.param({"oidc_jwks_url": "http://id.example.com/keys"}, "JWKS_URL", id="keys in the clear too"),
        pytest.param({"oidc_roles": "boss"}, "AIRMEDIC_OIDC_ROLES", id="no role"),
        pytest.param({"oidc_roles": "boss=root"}, "AIRMEDIC_OIDC_ROLES", id="no such role"),
    ],
)
def test_settings_that_would_be_unsafe_are_named(tmp_path: Path, given: dict[str, Any], word: str) -> None:
    told = {"oidc_issuer": "https://id.example.com", "oidc_audience": "a", **given}

    with pytest.raises(SettingsInvalid, match=word):
        sign_in_of(make_settings(tmp_path, **told))


def test_off_by_default(tmp_path: Path) -> None:
    assert sign_in_of(make_settings(tmp_path)) is None
    assert role_names("a team=admin, everyone=viewer,") == {"a team": Role.ADMIN, "everyone": Role.VIEWER}


def test_a_sign_in_is_a_way_to_ask_strangers(tmp_path: Path) -> None:
    told = {"oidc_issuer": "https://id.example.com", "oidc_audience": "a", "webhook_secret": "s" * 32}

    check_exposure(make_settings(tmp_path, host="0.0.0.0", **told))


async def test_signed_in_people_use_the_api_by_their_role(tmp_path: Path, issuer: Issuer) -> None:
    given: dict[str, Any] = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
    async with open_api(tmp_path, **given) as api:

        async def control(token: str | None) -> int:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            return (await api.http.post("/api/control", json={"shadow": True}, headers=headers)).status_code

        assert await control(None) == 401
        assert await control(issuer.token(exp=NOW - 120)) == 401
        assert await control(issuer.token(roles=[])) == 403
        assert await control(issuer.token(roles=["viewer"])) == 403
        assert await control(issuer.token()) == 200
        switches = await api.http.get("/api/control", headers={"authorization": f"Bearer {issuer.token()}"})
        assert switches.json()["by"] == "ada (sign-in)"
        issuer.rotate("second")
        issuer.up = False
        api.app.state.doorkeeper._sign_in._read_at = -1e9
        unasked = await api.http.get("/api/status", headers={"authorization": f"Bearer {issuer.token()}"})
        assert unasked.status_code == 503
        assert unasked.headers["retry-after"] == "5"
