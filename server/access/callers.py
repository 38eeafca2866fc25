"""Who calls, and what they may do."""

from __future__ import annotations

from graph.domain import DomainType, Role

LOCAL_OPERATOR = "local operator"
TOKEN_OPERATOR = "operator (API token)"


class Caller(DomainType):
    """Who calls, and what they may do."""

    name: str
    role: Role
    id: str = ""  #: what rate limits and idempotency keys belong to; the name where it is empty

    def may(self, role: Role) -> bool:
        """Whether this caller has at least `role`."""
        return self.role.includes(role)

    @property
    def key(self) -> str:
        """Tells this caller from all others."""
        return self.id or self.name
