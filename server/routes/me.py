"""Who asks: for programs that show a person only what that person may do."""

from __future__ import annotations

from fastapi import APIRouter

from graph.domain import Role
from server.access.entry import ViewerDep
from server.problems import documented
from server.schemas import AnswerBody

router = APIRouter(tags=["access"])


class MeOut(AnswerBody):
    """The caller as the server knows them."""

    name: str
    role: Role


@router.get("/me", summary="Read who you are", responses=documented(401, 403, 429, 503))
async def read_me(by: ViewerDep) -> MeOut:
    """Name and role behind the token that was shown. What the role allows is decided at each route."""
    return MeOut(name=by.name, role=by.role)
