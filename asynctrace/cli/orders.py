"""Orders: a shop's service, with everything that goes wrong in one; ``asynctrace demo`` traces it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import dataclass

from asynctrace import Trace, current_trace

_WORKERS = 4
_ORDERS = 8
_RETRIES = 3
_ITEMS = ("espresso machine", "grinder", "kettle", "scale", "filter papers", "tamper")
_LOW_STOCK = 3
_HASH_ROUNDS = 30_000  # some 10 ms of work that releases the GIL


class PaymentDeclinedError(Exception):
    """The bank said no."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order, and what will happen to it.

    Args:
        number: of the order.
        item: what is ordered.
        quantity: how many pieces.
        cents: what it costs.
        stock: how many pieces are there.
        latencies: seconds that the outside world takes: to look up stock, to answer about the payment.
        timeouts: how often the payment service does not answer before it does.
        declined: whether the bank says no.
    """

    number: int
    item: str
    quantity: int
    cents: int
    stock: int
    latencies: tuple[float, float]
    timeouts: int = 0
    declined: bool = False


def make_orders(seed: int | None) -> list[Order]:
    """Orders, the same for the same seed; always one that is declined and one that needs a second try.

    Args:
        seed: None for other ones each time.
    """
    dice = random.Random(seed)
    unlucky, slow, scarce = dice.sample(range(_ORDERS), 3)
    orders = []
    for index in range(_ORDERS):
        quantity = dice.randint(1, 4)
        orders.append(
            Order(
                number=1001 + index,
                item=dice.choice(_ITEMS),
                quantity=quantity,
                cents=quantity * dice.randint(900, 24_900),
                stock=dice.randint(0, _LOW_STOCK) + quantity if index == scarce else dice.randint(20, 90),
                latencies=(dice.uniform(0.005, 0.02), dice.uniform(0.015, 0.06)),
                timeouts=1 if index == slow else 0,
                declined=index == unlucky,
            )
        )
    return orders


async def run_service(run_id: str | None, orders: list[Order], sinks: list[str] | None) -> str:
    """Take the orders, four at a time; then send out the invoices, in a run of their own.

    Args:
        run_id: of the run; None for a new one.
        orders: the orders.
        sinks: where to record; None for the process default.

    Returns:
        The id of the run.
    """
    async with Trace(run_id, name="order-service", sinks=sinks, fields={"shop": "coffee"}) as trace:
        await _process_all(trace, orders)
        async with Trace(name="invoices", sinks=sinks) as invoices:
            await _send_invoices(invoices, [order for order in orders if not order.declined])
        declined = sum(order.declined for order in orders)
        await trace.ainfo("orders done", paid=len(orders) - declined, declined=declined)
        return trace.run_id


async def _process_all(trace: Trace, orders: list[Order]) -> None:
    waiting: asyncio.Queue[Order] = asyncio.Queue()
    await trace.ainfo("orders received", count=len(orders))
    for order in orders:
        waiting.put_nowait(order)
    await asyncio.gather(*[_worker(trace, waiting, number) for number in range(1, _WORKERS + 1)])


async def _worker(trace: Trace, waiting: asyncio.Queue[Order], number: int) -> None:
    async with trace.span("worker", number=number) as worker:
        done = 0
        while not waiting.empty():
            order = waiting.get_nowait()
            try:
                await _process(trace, order)
                done += 1
            except PaymentDeclinedError:
                worker.exception("order cancelled", order=order.number)
        worker.debug("nothing left to do", done=done)


async def _process(trace: Trace, order: Order) -> None:
    async with trace.span("order", order=order.number, item=order.item, quantity=order.quantity):
        await asyncio.gather(_reserve(order), _check_address(order))
        await _charge(order)
        digest = await asyncio.to_thread(_pack_label, order)
        await current_trace().ainfo("shipped", order=order.number, label=digest)


async def _reserve(order: Order) -> None:
    async with current_trace().span("reserve stock") as span:
        await asyncio.sleep(order.latencies[0])
        left = order.stock - order.quantity
        if left <= _LOW_STOCK:
            span.warning("stock is low", item=order.item, left=left)
        else:
            span.debug("reserved", item=order.item, left=left)


async def _check_address(order: Order) -> None:
    async with current_trace().span("check address") as span:
        await asyncio.sleep(order.latencies[0] / 2)
        span.debug("address known", order=order.number)


async def _charge(order: Order) -> None:
    async with current_trace().span("charge") as span:
        for attempt in range(1, _RETRIES + 1):
            await asyncio.sleep(order.latencies[1])
            if attempt > order.timeouts:
                break
            span.warning("payment service did not answer, trying again", attempt=attempt, of=_RETRIES)
        if order.declined:
            raise PaymentDeclinedError(f"card of order {order.number} was declined: insufficient funds")
        span.info("charged", amount=f"{order.cents / 100:.2f}", currency="EUR")


def _pack_label(order: Order) -> str:
    """Work for a thread: its span and records belong to the order all the same."""
    with current_trace().span("print label", order=order.number) as span:
        digest = hashlib.pbkdf2_hmac("sha256", str(order.number).encode(), order.item.encode(), _HASH_ROUNDS)
        span.debug("label printed", bytes=len(digest))
        return digest.hex()[:12]


async def _send_invoices(trace: Trace, orders: list[Order]) -> None:
    for order in orders:
        async with trace.span("invoice", order=order.number) as span:
            await asyncio.sleep(order.latencies[0] / 4)
            span.info("invoice sent", order=order.number, cents=order.cents)
