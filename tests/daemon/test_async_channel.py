"""The loop sends and receives without ever waiting for the other end."""

import asyncio
import os
import socket
import threading

import pytest

from daemon.async_channel import AsyncChannel
from io_pipeline.channel import Channel, ChannelClosed
from tests.io_pipeline.test_channel import echo


@pytest.mark.parametrize("size", [0, 65536, 10_000_000])
def test_the_loop_sends_and_receives_without_waiting(size):
    async def exchange() -> None:
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=echo, args=(Channel(theirs),))
        thread.start()
        channel = AsyncChannel(ours)
        file = os.memfd_create("test")
        await channel.send(b"x" * size, [file])
        message, received = await channel.receive()
        assert message == b"x" * size
        assert [os.fstat(each).st_ino for each in received] == [os.fstat(file).st_ino]
        assert channel.bytes_sent == channel.bytes_received >= size
        for each in [file, *received]:
            os.close(each)
        channel.close()
        thread.join()

    asyncio.run(exchange())


def test_the_loop_goes_on_while_a_long_message_waits():
    async def exchange() -> None:
        ours, theirs = socket.socketpair()
        channel, other = AsyncChannel(ours), AsyncChannel(theirs)
        sending = [asyncio.create_task(each.send(b"x" * 5_000_000)) for each in (channel, other)]
        await asyncio.gather(*sending, channel.receive(), other.receive())
        channel.close()
        other.close()

    asyncio.run(exchange())


def test_the_loop_learns_that_the_peer_is_gone():
    async def exchange() -> None:
        ours, theirs = socket.socketpair()
        channel, other = AsyncChannel(ours), Channel(theirs)
        other.send("last words")
        receiving = asyncio.create_task(channel.receive())
        await asyncio.sleep(0)
        other.close()
        assert await receiving == ("last words", [])
        with pytest.raises(ChannelClosed):
            await channel.receive()
        with pytest.raises(ChannelClosed):
            await channel.send("nobody there")
        channel.close()

    asyncio.run(exchange())


def test_closing_wakes_those_who_wait():
    async def exchange() -> None:
        ours, theirs = socket.socketpair()
        channel = AsyncChannel(ours)
        waiting = [
            asyncio.create_task(channel.receive()),
            asyncio.create_task(channel.send(b"x" * 5_000_000)),
        ]
        await asyncio.sleep(0.01)
        channel.close()
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in errors] == [ChannelClosed, ChannelClosed]
        theirs.close()

    asyncio.run(exchange())


def test_what_was_sent_before_the_end_can_be_received_after_it():
    async def exchange() -> None:
        before = len(os.listdir("/proc/self/fd"))
        ours, theirs = socket.socketpair()
        channel, other = AsyncChannel(ours), Channel(theirs)
        file = os.memfd_create("test")
        other.send("one")
        other.send("two", [file])
        other.send("three", [file])
        channel.finish()
        assert channel.waiting
        assert await channel.receive() == ("one", [])
        message, (received,) = await channel.receive()
        assert message == "two"
        channel.close()  # with the third unread
        other.close()
        os.close(file)
        os.close(received)
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(exchange())
