"""Planted secrets: random ones of every kind, in the places where real ones turn up in logs.

Written from the vendors' documentation of their formats, not from the patterns that look for them.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

ALNUM = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
URLSAFE = ALNUM + "_-"
HEX = "0123456789abcdef"
SYMBOLS = "!#%^*-_+.~@"


@dataclass(frozen=True)
class Canary:
    """One planted secret: `text` is a piece of log, `secret` what may not survive in it."""

    kind: str
    context: str
    text: str
    secret: str


@dataclass(frozen=True)
class Kind:
    """A kind of secret: how to make one, and the name it goes by. A `bare` one is known by its shape."""

    name: str
    key: str
    make: Callable[[random.Random], str]
    bare: bool = True


def text_of(alphabet: str, length: int) -> Callable[[random.Random], str]:
    """Random text."""
    return lambda rng: "".join(rng.choices(alphabet, k=length))


def shaped(shape: str) -> Callable[[random.Random], str]:
    """Random text by a shape: `{A36}` is 36 of ALNUM; L lower, U upper, S URL-safe, H hex, D digits."""
    alphabets = {
        "A": ALNUM,
        "L": LOWER,
        "U": UPPER,
        "S": URLSAFE,
        "H": HEX,
        "D": string.digits,
        "B": ALNUM + "+/",
    }

    def make(rng: random.Random) -> str:
        parts = shape.replace("}", "{").split("{")
        return "".join(
            part if index % 2 == 0 else "".join(rng.choices(alphabets[part[0]], k=int(part[1:])))
            for index, part in enumerate(parts)
        )

    return make


def password(rng: random.Random) -> str:
    """What a password generator makes: letters, digits and symbols."""
    body = rng.choices(ALNUM + SYMBOLS, k=rng.randint(9, 20))
    return "".join([rng.choice(string.ascii_letters), *body, rng.choice(string.digits)])


def _jwt(rng: random.Random) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": rng.randint(1, 99)}).encode())
    body = base64.urlsafe_b64encode(json.dumps({"sub": str(rng.random()), "exp": 1}).encode())
    return b".".join(part.rstrip(b"=") for part in (head, body)).decode() + "." + text_of(URLSAFE, 43)(rng)


def _card(rng: random.Random) -> str:
    digits = [int(char) for char in rng.choice(["4", "51", "6011"])]
    digits += [rng.randint(0, 9) for _ in range(15 - len(digits))]
    total = sum(sum(divmod(2 * digit, 10)) if index % 2 == 0 else digit for index, digit in enumerate(digits))
    text = "".join(map(str, [*digits, -total % 10]))
    return rng.choice([text, " ".join(text[at : at + 4] for at in range(0, 16, 4))])


def _iban(rng: random.Random) -> str:
    account = "".join(rng.choices(string.digits, k=18))
    check = 98 - int(account + "131400") % 97
    text = f"DE{check:02}{account}"
    return rng.choice([text, " ".join(text[at : at + 4] for at in range(0, 22, 4))])


def _phone(rng: random.Random) -> str:
    return rng.choice([shaped("+49 1{D2} {D7}"), shaped("+1-212-{D3}-{D4}"), shaped("(415) 2{D2}-{D4}")])(rng)


def _email(rng: random.Random) -> str:
    return f"{rng.choice(['jane', 'ola', 'li'])}.{text_of(string.ascii_lowercase, 8)(rng)}@example.org"


def _pem(kind: str) -> Callable[[random.Random], str]:
    def make(rng: random.Random) -> str:
        body = (
            "\n".join(text_of(ALNUM + "+/", 64)(rng) for _ in range(6))
            + "\n"
            + text_of(ALNUM, 20)(rng)
            + "=="
        )
        return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"

    return make


#: name, the key it usually goes by, shape
_SHAPED = """
aws-access-key-id|aws_access_key_id|AKIA{U16}
aws-temporary-key-id|aws_access_key_id|ASIA{U16}
aws-session-token|aws_session_token|IQoJb3JpZ2luX2Vj{B200}
gcp-api-key|google_api_key|AIza{S35}
gcp-oauth-token|access_token|ya29.a0{S120}
gcp-client-secret|client_secret|GOCSPX-{S28}
gcp-refresh-token|refresh_token|1//0{S60}
azure-client-secret|client_secret|{A3}8Q~{A34}
azure-storage-key|account_key|{B76}+ASt{B6}==
azure-devops-token|azure_devops_pat|{A76}AZDO{A4}
alibaba-access-key|access_key_id|LTAI5t{A16}
digitalocean-token|do_token|dop_v1_{H64}
github-classic-token|github_token|ghp_{A36}
github-oauth-token|github_token|gho_{A36}
github-fine-grained-token|github_token|github_pat_{A22}_{A59}
gitlab-token|gitlab_token|glpat-{S20}
gitlab-deploy-token|deploy_token|gldt-{S20}
bitbucket-token|bitbucket_token|ATBB{A32}
atlassian-token|jira_token|ATATT3{S180}
npm-token|npm_token|npm_{A36}
pypi-token|pypi_token|pypi-AgEIcHlwaS5vcmc{S120}
rubygems-key|gem_host_api_key|rubygems_{H48}
dockerhub-token|docker_token|dckr_pat_{S27}
artifactory-key|artifactory_api_key|AKCp{A69}
sonarqube-token|sonar_token|squ_{H40}
vault-token|vault_token|hvs.{S90}
doppler-token|doppler_token|dp.pt.{A43}
terraform-cloud-token|tfe_token|{A14}.atlasv1.{S67}
databricks-token|databricks_token|dapi{H32}
snowflake-session-token|session_token|ver:1-hint:1234-{B80}
planetscale-password|db_password|pscale_pw_{S43}
supabase-key|supabase_key|sbp_{H40}
airtable-token|airtable_token|pat{A14}.{H64}
notion-token|notion_token|ntn_{A46}
fernet-key|fernet_key|{S43}=
fernet-token|payload|gAAAAA{S120}
openai-key|openai_api_key|sk-{A48}
openai-project-key|openai_api_key|sk-proj-{S120}
anthropic-key|anthropic_api_key|sk-ant-api03-{S95}
huggingface-token|hf_token|hf_{A34}
groq-key|groq_api_key|gsk_{A52}
replicate-token|replicate_api_token|r8_{A37}
langsmith-key|langsmith_api_key|lsv2_pt_{H32}_{H10}
slack-bot-token|slack_token|xoxb-{D12}-{D12}-{A24}
slack-user-token|slack_token|xoxp-{D12}-{D12}-{D12}-{H32}
slack-app-token|slack_app_token|xapp-1-A{U10}-{D13}-{H64}
discord-token|bot_token|MT{A22}.{A6}.{S38}
telegram-token|bot_token|{D10}:AA{S33}
stripe-key|stripe_key|sk_live_{A24}
stripe-restricted-key|stripe_key|rk_live_{A24}
stripe-webhook-secret|webhook_secret|whsec_{A32}
square-token|square_token|sq0atp-{S22}
paypal-token|paypal_token|access_token$production${L16}${H32}
shopify-token|shopify_token|shpat_{H32}
twilio-key|twilio_api_key|SK{H32}
sendgrid-key|sendgrid_api_key|SG.{S22}.{S43}
mailgun-key|mailgun_api_key|key-{L32}
mailchimp-key|mailchimp_api_key|{H32}-us12
brevo-key|brevo_key|xkeysib-{H64}-{A16}
hubspot-token|hubspot_token|pat-na1-{H8}-{H4}-{H4}-{H4}-{H12}
newrelic-key|newrelic_key|NRAK-{U27}
grafana-token|grafana_token|glsa_{A32}_{H8}
sentry-token|sentry_token|sntrys_{B80}
dynatrace-token|dynatrace_token|dt0c01.{U24}.{U64}
pagerduty-token|pagerduty_token|u+{S18}
linear-key|linear_key|lin_api_{A40}
postman-key|postman_key|PMAK-{H24}-{H34}
bcrypt-hash|hash|$2b$12${A53}
sha512-crypt-hash|hash|$6$rounds${A86}
ssn|ssn|412-{D2}-4{D3}
"""

#: name, the key that announces it, shape: nothing in the value itself tells
_NAMED = """
aws-secret-key|aws_secret_access_key|{B40}
azure-ad-secret|client_secret|{A40}
azure-sas-token|sas_token|{A44}
datadog-api-key|dd_api_key|{H32}
datadog-app-key|DD_APP_KEY|{H40}
twilio-auth-token|twilio_auth_token|{H32}
snowflake-password|snowflake_password|{A16}
snowflake-passphrase|private_key_passphrase|{A16}
redis-password|redis_password|{A20}
mongo-password|mongo_passwd|{A20}
smtp-password|SMTP_PASSWORD|{A16}
oauth-refresh-token|refresh_token|{S64}
oauth-access-token|access_token|{S64}
session-key|session_key|{S40}
encryption-key|encryption_key|{H64}
webserver-secret-key|AIRFLOW__API__SECRET_KEY|{H32}
jwt-secret|AIRFLOW__API_AUTH__JWT_SECRET|{S24}
kubernetes-token|token|{A48}
vault-secret-id|secret_id|{H8}-{H4}-{H4}-{H4}-{H12}
elastic-api-key|elastic_api_key|{B50}
splunk-hec-token|splunk_hec_token|{H8}-{H4}-{H4}-{H4}-{H12}
opsgenie-key|opsgenie_api_key|{H8}-{H4}-{H4}-{H4}-{H12}
sentry-auth-token|sentry_auth_token|{H64}
algolia-key|algolia_api_key|{H32}
mapbox-secret|mapbox_secret|{A60}
one-time-code-seed|totp_secret|{U32}
ftp-password|ftp_pass|{A12}
keystore-password|keystorePassword|{A12}
"""


def all_kinds() -> tuple[Kind, ...]:
    """Every kind that is planted."""
    rows = [(line.split("|"), True) for line in _SHAPED.split()]
    rows += [(line.split("|"), False) for line in _NAMED.split()]
    kinds = [Kind(name, key, shaped(shape), bare) for (name, key, shape), bare in rows]
    kinds += [
        Kind("password", key, password, False) for key in ("password", "DB_PASSWORD", "pwd", "userPassword")
    ]
    kinds += [Kind("jwt", "id_token", _jwt), Kind("card-number", "card_number", _card)]
    kinds += [Kind("iban", "iban", _iban), Kind("phone", "phone", _phone), Kind("email", "contact", _email)]
    armours = (
        "PRIVATE KEY",
        "RSA PRIVATE KEY",
        "EC PRIVATE KEY",
        "OPENSSH PRIVATE KEY",
        "PGP PRIVATE KEY BLOCK",
    )
    kinds += [
        Kind("pem-" + armour.lower().replace(" ", "-"), "private_key", _pem(armour)) for armour in armours
    ]
    return tuple(kinds)


def plant(kind: Kind, rng: random.Random) -> Iterator[Canary]:
    """One fresh secret for each place this kind turns up in."""
    contexts = CONTEXTS | (BARE_CONTEXTS if kind.bare else {})
    for context, render in contexts.items():
        secret = kind.make(rng)
        yield Canary(kind.name, context, render(kind.key, secret), secret)
    if kind.name == "password":
        for context, template in PASSWORD_TEMPLATES.items():
            secret = kind.make(rng).replace("@", "a").replace("%", "b").replace("#", "c")
            yield Canary(kind.name, context, template.replace("{}", secret), secret)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _flat(key: str) -> str:
    return key.replace("_", "-").lower()


Render = Callable[[str, str], str]
CONTEXTS: dict[str, Render] = {
    "url-query": lambda k, s: f"GET https://api.example.com/v1/orders?{k}={quote(s, safe='')}&page=2 -> 401",
    "json": lambda k, s: json.dumps({"host": "db-1", k: s, "port": 5432}),
    "json-in-json": lambda k, s: json.dumps({"body": json.dumps({"host": "db-1", k: s})}),
    "environment": lambda k, s: f"export {k.upper()}='{s}'",
    "environment-bare": lambda k, s: f"{k.upper()}={s.splitlines()[0] if '-----' not in s else repr(s)}",
    "traceback-locals": lambda k, s: f"    {k} = {s!r}\n    rows = 10",
    "python-call": lambda k, s: f"  connect(host='db-1', {k}={s!r}, timeout=30)",
    "python-dict": lambda k, s: f"config: {{'host': 'db-1', {k!r}: {s!r}, 'port': 5432}}",
    "yaml": lambda k, s: f"  host: db-1\n  {k}: {json.dumps(s)}\n  port: 5432",
    "cli-flag": lambda k, s: f"$ loader --host db-1 --{_flat(k)} {s!r} --verbose",
    "cli-flag-equals": lambda k, s: f"$ loader --host db-1 --{_flat(k)}={s!r} --verbose",
    "header": lambda k, s: f"> X-{_flat(k)}: {s!r}",
    "bearer-header": lambda k, s: (
        f"headers={{'Authorization': 'Bearer {s.encode('unicode_escape').decode()}'}}"
    ),
    "base64-basic": lambda k, s: f"> Authorization: Basic {_base64('svc:' + s)}",
    "base64-pair": lambda k, s: f"auth blob {_base64(s if ' ' in s else 'svc:' + s)} was refused",
    "base64-json": lambda k, s: f"payload {_base64(json.dumps({'host': 'db-1', k: s}))} was refused",
}
BARE_CONTEXTS: dict[str, Render] = {
    "prose": lambda k, s: f"the remote side refused {s} for job 4711",
    "log-value": lambda k, s: f"[2026-11-22T22:46:04.789+0000] INFO - using value={s}\nnext line",
    "quoted": lambda k, s: f"ValueError: cannot use '{s}' here",
}
PASSWORD_TEMPLATES: dict[str, str] = {
    "postgres-url": "postgresql+psycopg2://etl:{}@db.prod:5432/shop",
    "mysql-url": "mysql://etl:{}@10.0.0.5/shop?charset=utf8",
    "mongo-url": "mongodb+srv://etl:{}@cluster0.example.net/?retryWrites=true",
    "redis-url": "redis://:{}@cache-1:6379/0",
    "amqp-url": "amqp://guest:{}@mq-1:5672//",
    "snowflake-url": "snowflake://etl:{}@acme-eu1/db/schema?warehouse=wh",
    "airflow-conn": "AIRFLOW_CONN_SHOP='postgres://etl:{}@db-1:5432/shop'",
    "proxy-url": "HTTPS_PROXY=http://svc:{}@proxy.local:3128",
    "git-url": "fatal: unable to access 'https://bot:{}@git.example.com/x.git/'",
    "jdbc-query": "jdbc:postgresql://db-1:5432/shop?user=etl&password={}&ssl=true",
    "jdbc-semicolon": "jdbc:sqlserver://db-1:1433;user=etl;password={};encrypt=true",
    "jdbc-oracle": "jdbc:oracle:thin:scott/{}@//db-1:1521/ORCL",
    "odbc": "Driver={ODBC Driver 18};Server=db-1;Uid=etl;Pwd={};Encrypt=yes",
    "libpq": "host=db-1 port=5432 user=etl password={} dbname=shop",
    "sql-mysql": "CREATE USER 'etl'@'%' IDENTIFIED BY '{}'",
    "sql-postgres": "ALTER ROLE etl WITH LOGIN PASSWORD '{}' VALID UNTIL 'infinity'",
    "sql-server": "CREATE LOGIN etl WITH PASSWORD = N'{}'",
    "sql-oracle": "ALTER USER etl IDENTIFIED BY {}",
    "mysql-cli": "mysql -h db-1 -u etl -p{} shop",
    "sshpass": "sshpass -p '{}' ssh etl@host-1",
    "sqlcmd": "sqlcmd -S db-1 -U etl -P {} -Q 'select 1'",
    "redis-cli": "redis-cli -h cache-1 -a {} ping",
    "curl-user": "curl -sS -u etl:{} https://api.example.com/",
    "docker-login": "docker login -u etl -p {} registry.example.com",
    "pgpassword": "PGPASSWORD={} psql -h db-1 -U etl",
    "pgpass": "db-1:5432:shop:etl:{}",
    "netrc": "machine api.example.com login etl password {}",
    "xml": "<property><password>{}</password></property>",
    "kubernetes-env": '{"name": "DB_PASSWORD", "value": "{}"}',
    "kubernetes-env-yaml": "    - name: DB_PASSWORD\n      value: {}",
    "tuple": "headers: [('X-Auth-Password', '{}')]",
    "colon": "Password: {}",
    "snowflake-copy": "CREDENTIALS=(AWS_KEY_ID='x' AWS_SECRET_KEY='{}')",
    "redshift-copy": "CREDENTIALS 'aws_access_key_id=x;aws_secret_access_key={}'",
    "jaas": 'sasl.jaas.config=org.x.PlainLoginModule required username="etl" password="{}";',
    "java-option": "java -Djavax.net.ssl.trustStorePassword={} -jar loader.jar",
    "openssl": "openssl rsa -in key.pem -passin pass:{} -out out.pem",
    "cookie": "Cookie: session={}; theme=dark",
    "oracle-url": "oracle+cx_oracle://etl:{}@db-1:1521/ORCL",
    "url-encoded-json": "body=%7B%22password%22%3A%22{}%22%7D",
    "environ": "environ({'PATH': '/bin', 'DB_PASSWORD': '{}'})",
    "annotated": "    db_password: str = '{}'",
    "auth-tuple": "requests.get(url, auth=('etl', '{}'))",
    "table": "| password | {} |",
    "dockerfile": "ENV DB_PASSWORD {}",
    "value-before-name": "{'value': '{}', 'name': 'DB_PASSWORD'}",
    "prompt": "Password for etl: {}",
    "arrow": "DB_PASSWORD -> {}",
    "xml-attribute": '<add key="DbPassword" value="{}" />',
    "helm": "helm upgrade x ./x --set auth.password={} --wait",
    "ini": "[database]\npassword = {}\nport = 5432",
    "oracle-logon": "cannot log on as scott/{}@ORCLPDB1: listener refused",
    "oracle-easy-connect": "connecting with hr/{}@//db-1:1521/orcl",
    "locals-args": "    args = ('etl', '{}')\n    rows = 10",
    "locals-args-last": "    args = ('db-1', 1521, 'etl', '{}')",
    "login-call": "  File ftp.py: session.login('etl', '{}')",
    "yaml-block": "password: >-\n  {}",
}
