"""Secrets known by their own shape: vendors give tokens a prefix so that scanners can find them."""

from __future__ import annotations

import re

from tools.redaction_rules import Match, Rule, compiled, masked

#: kind -> pattern. A leading group is kept: it is what stands before the secret.
TOKEN_KINDS: dict[str, bytes] = {
    # clouds
    "aws-access-key-id": rb"\b(?:A3T[A-Z0-9]|AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ABIA|ACCA)"
    rb"[A-Z0-9]{16}\b",
    "aws-session-token": rb"\b(?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz|AQoDYXdz|AQoEXAMPLE)"
    rb"[A-Za-z0-9+/=%_-]{16,}",
    "aws-mws-key": rb"\bamzn\.mws\.[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "aws-bedrock-key": rb"\bABSK[A-Za-z0-9+/]{100,}={0,2}",
    "gcp-api-key": rb"\bAIza[0-9A-Za-z_-]{35}",
    "gcp-oauth-token": rb"\bya29\.[0-9A-Za-z._-]{20,}",
    "gcp-refresh-token": rb"\b1//0[0-9A-Za-z_-]{30,}",
    "gcp-client-secret": rb"\bGOCSPX-[0-9A-Za-z_-]{20,}",
    "gcp-hmac-key": rb"\bGOOG[A-Z0-9]{20,60}\b",
    "azure-client-secret": rb"\b[A-Za-z0-9_~.]{3}8Q~[A-Za-z0-9_~.-]{31,34}",
    "azure-storage-key": rb"[A-Za-z0-9+/]+\+ASt[A-Za-z0-9+/]{6}==",
    "azure-devops-token": rb"\b[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}\b",
    "alibaba-access-key": rb"\bLTAI[A-Za-z0-9]{12,20}\b",
    "tencent-secret-id": rb"\bAKID[A-Za-z0-9]{13,40}\b",
    "digitalocean-token": rb"\bdo[opr]_v1_[a-f0-9]{64}\b",
    "yandex-key": rb"\b(?:AQVN[A-Za-z0-9_-]{35,38}|YC[a-zA-Z0-9_-]{38})\b",
    "cloudflare-ca-key": rb"\bv1\.0-[a-f0-9]{24}-[a-f0-9]{146}",
    "heroku-key": rb"\bHRKU-[A-Za-z0-9_-]{32,}",
    "flyio-token": rb"\b(?:fo1_[\w-]{43}|fm[12][ar]?_[A-Za-z0-9+/]{60,}={0,3})",
    # our own
    "airmedic-token": rb"\bairm_[0-9A-Za-z]{30,}",
    # code hosting, packages, builds
    "github-token": rb"\b(?:gh[opsur]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{22,255})",
    "gitlab-token": rb"\bgl(?:pat|ptt|dt|rt|cbt|soat|ft|imt|agent|oas)-[A-Za-z0-9_.-]{16,}",
    "gitlab-runner-token": rb"\bGR1348941[A-Za-z0-9_-]{20,}",
    "bitbucket-token": rb"\b(?:ATBB|ATCTT3)[A-Za-z0-9_=-]{24,}",
    "atlassian-token": rb"\bATATT3[A-Za-z0-9_=-]{24,}",
    "npm-token": rb"\bnpm_[A-Za-z0-9]{30,}",
    "pypi-token": rb"\bpypi-[A-Za-z0-9_-]{32,}",
    "rubygems-token": rb"\brubygems_[a-f0-9]{48}",
    "nuget-key": rb"\boy2[a-z0-9]{43}\b",
    "crates-token": rb"\bcio[A-Za-z0-9]{32}\b",
    "clojars-token": rb"\bCLOJARS_[a-z0-9]{60}",
    "dockerhub-token": rb"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}",
    "artifactory-token": rb"\b(?:AKCp[A-Za-z0-9]{59,}|cmVmd[A-Za-z0-9]{59})\b",
    "sonarqube-token": rb"\bsq[upa]_[a-f0-9]{40}\b",
    "circleci-token": rb"\bCCIPAT_[A-Za-z0-9]{20,}_[a-f0-9]{40}",
    "buildkite-token": rb"\bbk(?:ua|ct|at)_[A-Za-z0-9]{20,}",
    "pulumi-token": rb"\bpul-[a-f0-9]{40}\b",
    "terraform-token": rb"\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,}",
    "vault-token": rb"\b(?:hv[sbr]\.[A-Za-z0-9_-]{20,}|s\.[A-Za-z0-9]{24}\b)",
    "doppler-token": rb"\bdp\.(?:pt|st|ct|scim|audit)\.[A-Za-z0-9._-]{30,}",
    "onepassword-token": rb"\bops_eyJ[A-Za-z0-9+/=_-]{60,}",
    "age-key": rb"\bAGE-SECRET-KEY-1[0-9A-Z]{58}",
    # data platforms
    "databricks-token": rb"\bdapi[a-f0-9]{32}(?:-\d)?\b",
    "snowflake-session-token": rb"\bver:\d-hint:\d+-[A-Za-z0-9+/=_-]{16,}",
    "planetscale-token": rb"\bpscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32,}",
    "supabase-key": rb"\bsbp_[a-f0-9]{40}\b|\bsb_secret_[A-Za-z0-9_-]{20,}",
    "airtable-token": rb"\bpat[A-Za-z0-9]{14}\.[a-f0-9]{64}\b",
    "notion-token": rb"\b(?:ntn_[A-Za-z0-9]{40,}|secret_[A-Za-z0-9]{43})\b",
    "fernet-token": rb"\bgAAAAA[A-Za-z0-9_-]{60,}={0,2}",
    "fernet-key": rb"(^|[^A-Za-z0-9_-])[A-Za-z0-9_-]{43}=\B",
    "jwt": rb"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]+){0,3}",
    # language models
    "anthropic-key": rb"\bsk-ant-[A-Za-z0-9_-]{16,}",
    "openai-key": rb"\bsk-(?:(?:proj|svcacct|admin)-)?[A-Za-z0-9_-]{20,}",
    "openrouter-key": rb"\bsk-or-v1-[a-f0-9]{32,}",
    "huggingface-token": rb"\b(?:hf_|api_org_)[A-Za-z0-9]{30,}",
    "groq-key": rb"\bgsk_[A-Za-z0-9]{40,}",
    "replicate-token": rb"\br8_[A-Za-z0-9]{37}",
    "langsmith-key": rb"\blsv2_(?:pt|sk)_[A-Za-z0-9]{32}_[A-Za-z0-9]{10}",
    "perplexity-key": rb"\bpplx-[A-Za-z0-9]{40,}",
    "xai-key": rb"\bxai-[A-Za-z0-9]{60,}",
    # people, payment, mail
    "slack-token": rb"\bx(?:ox[abeoprs]|app|wfp)-[A-Za-z0-9-]{10,}(?:\.[A-Za-z0-9-]+)*",
    "slack-webhook": rb"(hooks\.slack\.com/(?:services|workflows|triggers)/)[A-Za-z0-9+/_-]{20,}",
    "teams-webhook": rb"(\.webhook\.office\.com/webhookb2/)[A-Za-z0-9@/_-]{30,}",
    "discord-webhook": rb"(discord(?:app)?\.com/api/webhooks/)\d{15,}/[A-Za-z0-9_-]{30,}",
    "discord-token": rb"\b[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}",
    "telegram-token": rb"(?:\b|bot)\d{8,10}:AA[A-Za-z0-9_-]{32,34}",
    "zapier-webhook": rb"(hooks\.zapier\.com/hooks/catch/)[A-Za-z0-9/]{8,}",
    "stripe-key": rb"\b(?:[srp]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,})",
    "square-token": rb"\b(?:sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,}|EAAA[A-Za-z0-9_-]{60})",
    "paypal-token": rb"\baccess_token\$(?:production|sandbox)\$[a-z0-9]{16}\$[a-f0-9]{32}",
    "shopify-token": rb"\bshp(?:at|ca|pa|ss|tka)_[a-fA-F0-9]{32}\b",
    "plaid-token": rb"\baccess-(?:sandbox|development|production)"
    rb"-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}",
    "twilio-key": rb"\b(?:SK|AC)[0-9a-f]{32}\b",
    "sendgrid-key": rb"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    "mailgun-key": rb"\bkey-[0-9a-zA-Z]{32}\b",
    "mailchimp-key": rb"\b[0-9a-f]{32}-us\d{1,2}\b",
    "brevo-key": rb"\bxkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}",
    "hubspot-key": rb"\bpat-(?:na|eu)1-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}",
    "facebook-token": rb"\bEAA[MC][A-Za-z0-9]{40,}",
    "linear-key": rb"\blin_(?:api|oauth)_[A-Za-z0-9]{32,}",
    "figma-token": rb"\bfig[dor]_[A-Za-z0-9_-]{36,}",
    "contentful-token": rb"\bCFPAT-[A-Za-z0-9_-]{40,}",
    "postman-key": rb"\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}",
    # watching and paging
    "newrelic-key": rb"\bNR(?:AK|AL|AA|JS|II|RA)-[A-Za-z0-9_-]{19,}|\b[a-f0-9]{36}NRAL\b",
    "pagerduty-key": rb"\b(?:pd(?:us|eu)\+_[A-Za-z0-9_+-]{20,}|u\+[A-Za-z0-9_-]{18})",
    "grafana-token": rb"\bgl(?:sa_[A-Za-z0-9]{32}_[a-f0-9]{8}|c_[A-Za-z0-9+/]{32,}={0,3})",
    "sentry-token": rb"\bsntr(?:ys|yu)_[A-Za-z0-9+/=_-]{32,}",
    "dynatrace-token": rb"\bdt0[a-z]\d{2}\.[A-Z0-9]{24}\.[A-Z0-9]{64}",
    "splunk-token": rb"(\bSplunk\s+)[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
    "launchdarkly-key": rb"\bsdk-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}",
    # keys and hashes
    "ssh-private-key": rb"\bb3BlbnNzaC1rZXktdjE[A-Za-z0-9+/]{32,}={0,2}",
    "putty-private-key": rb"(\bPrivate-MAC:\s*)[0-9a-f]{40,64}",
    "password-hash": rb"(?:\$|%24)(?:1|2[abxy]?|5|6|y|apr1|argon2[id]{1,2}|scrypt)"
    rb"(?:\$|%24)[./A-Za-z0-9$=,+%]{20,}"
    rb"|\bpbkdf2[_:]sha\d+[$:]\d+[$:][^\s$:\"']+[$:][A-Za-z0-9+/=]{20,}"
    rb"|\bSCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=:]{20,}",
    "ldap-password-hash": rb"\{(?:SSHA|SHA|SMD5|CRYPT)\d*\}[A-Za-z0-9+/=$.]{16,}",
}

_COUNTED = re.compile(rb"(\[[^\]]*\]|\\[wd])\{(?:[5-9]|\d{2,})(?:,\d*)?\}")
# Kinds that begin with any letter have no prefix to scan for: what is rare in the middle of them serves.
_TRIGGERS = {
    "azure-client-secret": rb"8Q~",
    "azure-storage-key": rb"\+ASt",
    "azure-devops-token": rb"AZDO",
    "terraform-token": rb"\.atlasv1\.",
    "mailchimp-key": rb"[0-9a-f]{4}-us\d",
    "newrelic-key": rb"NR(?:AK|AL|AA|JS|II|RA)",
    "telegram-token": rb"\d:AA[A-Za-z0-9_-]{16}",
    "discord-token": rb"\b[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.",
    "fernet-key": rb"[A-Za-z0-9_-]{24}=\B",
}


def _alternatives(source: bytes) -> list[bytes]:
    """Split at the `|` that stand in no group."""
    parts: list[bytes] = []
    for piece in source.split(b"|"):
        if parts and parts[-1].count(b"(") != parts[-1].count(b")"):
            parts[-1] += b"|" + piece
        else:
            parts.append(piece)
    return parts


def _trigger(source: bytes) -> bytes:
    """The pattern up to three characters of its first long class: long counts multiply the scan's states."""
    short = []
    for part in _alternatives(source):
        found = _COUNTED.search(part)
        head = part[: found.start()] if found else part
        whole = found is None or head.count(b"(") != head.count(b")")
        short.append(
            _COUNTED.sub(rb"\1{3,}", part) if found is None or whole else head + found.group(1) + b"{3}"
        )
    return b"|".join(short)


def _rule(kind: str, source: bytes) -> Rule:
    keeps_head = source.startswith(b"(") and not source.startswith(b"(?")

    def replace(match: Match) -> bytes:
        kept = match.group(1) if keeps_head else b""
        return kept + masked(kind, match.group()[len(kept) :])

    return Rule(kind, compiled(source), replace, _TRIGGERS.get(kind, _trigger(source)))


_ALL = tuple(_rule(kind, source) for kind, source in TOKEN_KINDS.items())
TOKENS = tuple(rule for rule in _ALL if rule.name not in _TRIGGERS)
ODD_TOKENS = tuple(rule for rule in _ALL if rule.name in _TRIGGERS)
