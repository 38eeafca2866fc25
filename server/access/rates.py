"""Rate limits: how often one caller, or one address that shows no known token, may ask.

In memory they are counted here: one number per key, and no more keys than a bound. In Redis, for several
servers that share one budget, `limits` counts. When Redis does not answer, memory counts on.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from graph.errors import SettingsInvalid

log = structlog.get_logger("rates")

OFF = "off"
KEYS = 20_000  # counted at once in memory; the longest unused one gives way
REDIS_TIME = 0.5  # seconds Redis has to answer
REDIS_REST = 10.0  # seconds in which Redis is not asked after it failed


class Rate(NamedTuple):
    """So many requests in so many seconds, all of them at once if need be."""

    amount: int
    seconds: float
    item: RateLimitItem


def rate_of(spelled: str, *, variable: str) -> Rate | None:
    """The rate that a setting like `600/minute` means; None for `off`. Raises `SettingsInvalid`."""
    if spelled.strip().lower() == OFF:
        return None
    try:
        item = parse(spelled)
    except ValueError as exc:
        raise SettingsInvalid(f"{variable} is {spelled!r}: write 600/minute, 20/second or off") from exc
    if item.amount < 1:
        raise SettingsInvalid(f"{variable} is {spelled!r}: nothing could be asked; write off for no limit")
    return Rate(item.amount, float(item.get_expiry()), item)


class Limiter(Protocol):
    """Counts requests."""

    async def spend(self, rate: Rate, key: str) -> float:
        """Take one request from the key's budget: 0, or the seconds to wait when it is used up."""
        ...

    async def close(self) -> None:
        """Let go of what counting holds open."""
        ...


class MemoryLimiter:
    """Counts in this process: for each key, the moment at which its budget is whole again."""

    def __init__(self, *, timer: Callable[[], float] = time.monotonic, keys: int = KEYS) -> None:
        self._timer = timer
        self._keys = keys
        self._whole_at: OrderedDict[tuple[int, float, str], float] = OrderedDict()

    async def spend(self, rate: Rate, key: str) -> float:
        """See `Limiter`."""
        now, place = self._timer(), (rate.amount, rate.seconds, key)
        whole_at = max(now, self._whole_at.get(place, now)) + rate.seconds / rate.amount
        wait = whole_at - now - rate.seconds
        if wait > 1e-6:
            return wait
        self._whole_at[place] = whole_at
        self._whole_at.move_to_end(place)
        if len(self._whole_at) > self._keys:
            self._whole_at.popitem(last=False)
        return 0.0

    async def close(self) -> None:
        """Nothing is open."""


class RedisLimiter:
    """Counts in Redis, and in memory while Redis does not answer."""

    def __init__(self, url: str, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._storage = RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="airmedic",
            socket_timeout=REDIS_TIME,
            socket_connect_timeout=REDIS_TIME,
        )
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self._fallback = MemoryLimiter(timer=timer)
        self._timer = timer
        self._rest_until = -math.inf

    async def spend(self, rate: Rate, key: str) -> float:
        """See `Limiter`."""
        if self._timer() < self._rest_until:
            return await self._fallback.spend(rate, key)
        try:
            if await self._limiter.hit(rate.item, key):
                return 0.0
            stats = await self._limiter.get_window_stats(rate.item, key)
        except StorageError as exc:
            log.warning("redis_silent", error=type(exc.storage_error).__name__, seconds=REDIS_REST)
            self._rest_until = self._timer() + REDIS_REST
            return await self._fallback.spend(rate, key)
        return max(1.0, stats.reset_time - time.time())

    async def close(self) -> None:
        """Hang up."""
        assert isinstance(self._storage.bridge, RedispyBridge)
        await self._storage.bridge.storage.aclose()


def limiter_of(redis_url: str | None) -> Limiter:
    """The limiter that `AIRMEDIC_REDIS_URL` asks for. Raises `SettingsInvalid`."""
    if not redis_url:
        return MemoryLimiter()
    if not redis_url.startswith(("redis://", "rediss://", "redis+unix://")):
        raise SettingsInvalid("AIRMEDIC_REDIS_URL must start with redis://, rediss:// or redis+unix://")
    try:
        return RedisLimiter(redis_url)
    except ValueError as exc:
        raise SettingsInvalid("AIRMEDIC_REDIS_URL is no address of a Redis") from exc


def place_of(client: tuple[str, int] | None) -> str:
    """What an address is counted under: one IPv6 subscriber has a whole /64 of them."""
    return "address:unknown" if client is None else _place(client[0])


@lru_cache(maxsize=4096)
def _place(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return f"address:{host[:100]}"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"address:{address.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((address, 64), strict=False)}"
    return f"address:{address}"
