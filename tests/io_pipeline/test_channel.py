"""Messages of any size and file descriptors, between processes."""

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from io_pipeline.blocks import Block, Layout
from io_pipeline.channel import HEADER, MAX_DESCRIPTORS, Channel, ChannelClosed

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    before = len(os.listdir("/proc/self/fd"))
    ends = socket.socketpair()
    one, other = Channel(ends[0]), Channel(ends[1])
    yield one, other
    one.close()
    other.close()
    assert len(os.listdir("/proc/self/fd")) == before


class Unreadable:
    """A message that the other end cannot read."""

    def __reduce__(self):
        return int, ("no number",)


class Unwritable:
    """A message that cannot be sent."""

    def __reduce__(self):
        raise TypeError("not to be sent")


def echo(channel: Channel) -> None:
    try:
        while True:
            message, descriptors = channel.receive()
            channel.send(message, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
    except ChannelClosed:
        channel.close()


@pytest.mark.parametrize("size", [0, 1, 65536 - HEADER.size, 65536, 10_000_000])
def test_messages_of_any_size_go_both_ways(pair, size):
    one, other = pair
    thread = threading.Thread(target=echo, args=(other,))
    thread.start()
    one.send(b"x" * size)
    assert one.receive() == (b"x" * size, [])
    one.socket.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert one.bytes_sent == one.bytes_received == other.bytes_received == other.bytes_sent
    assert size < one.bytes_sent < size + 100


def test_many_messages_keep_their_order_and_descriptors(pair):
    one, other = pair
    files = [os.memfd_create(f"test-{i}") for i in range(7)]
    inodes = [os.fstat(file).st_ino for file in files]
    for i in range(7):
        one.send(("between", i))
        one.send(i, files[i:])
    for i in range(7):
        assert other.receive() == (("between", i), [])
        message, received = other.receive()
        assert message == i
        assert [os.fstat(file).st_ino for file in received] == inodes[i:]
        assert not any(os.get_inheritable(file) for file in received)
        for file in received:
            os.close(file)
    for file in files:
        os.close(file)


def test_as_many_descriptors_as_the_kernel_takes(pair):
    one, other = pair
    file = os.memfd_create("test")
    with pytest.raises(ValueError, match="254 descriptors with one message, 253 go"):
        one.send("too many", [file] * (MAX_DESCRIPTORS + 1))
    one.send("many", [file] * MAX_DESCRIPTORS)
    message, received = other.receive()
    assert message == "many"
    assert len(received) == MAX_DESCRIPTORS
    for each in [file, *received]:
        os.close(each)


def test_a_message_comes_byte_by_byte(pair):
    one, other = pair
    one.send({"a": [1, 2]})
    data = other.socket.recv(1000)
    for i in range(len(data)):
        assert other.complete() is None
        one.socket.send(data[i : i + 1])
        assert other.receive_some()
    envelope = other.complete()
    assert envelope is not None
    assert envelope.opened() == ({"a": [1, 2]}, [])


def test_a_peer_that_is_gone_in_mid_message(pair):
    one, other = pair
    one.socket.send(HEADER.pack(1000, 0) + b"only a part")
    one.close()
    with pytest.raises(ChannelClosed):
        other.receive()


def test_a_peer_that_is_gone_before_a_message(pair):
    one, other = pair
    one.close()
    with pytest.raises(ChannelClosed):
        other.receive()
    with pytest.raises(ChannelClosed):
        other.send("nobody there")


def test_a_peer_that_is_gone_without_having_read(pair):
    one, other = pair
    other.send("never read")
    one.close()
    with pytest.raises(ChannelClosed):
        other.receive()


def test_descriptors_of_an_unfinished_message_are_closed(pair):
    one, other = pair
    file = os.memfd_create("test")
    socket.send_fds(one.socket, [HEADER.pack(1000, 1)], [file])
    one.close()
    with pytest.raises(ChannelClosed):
        other.receive()
    os.close(file)


def test_a_message_that_cannot_be_read_does_not_harm_the_next(pair):
    one, other = pair
    file = os.memfd_create("test")
    one.send(Unreadable(), [file])
    one.send("next")
    with pytest.raises(ValueError, match="no number"):
        other.receive()
    assert other.receive() == ("next", [])
    os.close(file)


def test_a_message_that_cannot_be_written_is_not_sent(pair):
    one, other = pair
    with pytest.raises(TypeError, match="not to be sent"):
        one.send(Unwritable())
    assert one.bytes_sent == 0
    one.send("next")
    assert other.receive() == ("next", [])


def test_descriptors_that_find_no_room_are_an_error_and_not_lost_in_silence(pair):
    one, other = pair
    file = os.memfd_create("test")
    one.send("blocks", [file] * 3)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (file + 2, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            other.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    os.close(file)


def test_a_block_of_64_mib_is_a_message_of_a_few_hundred_bytes(pair):
    one, other = pair
    with Block.create(Layout.of(a=((64 << 20,), "u1"))) as block:
        block.allocate()
        block["a"][-1] = 9
        one.send(block.layout, [block.descriptor])
        layout, (descriptor,) = other.receive()
        with Block.attach(descriptor, layout) as same:
            assert same["a"][-1] == 9
    assert one.bytes_sent == other.bytes_received < 500


def test_threads_share_a_channel(pair):
    one, other = pair
    count = 300

    def talk(name):
        for i in range(count):
            one.offer((name, i, b"x" * 3000))

    threads = [threading.Thread(target=talk, args=(name,)) for name in "ab"]
    found = []

    def listen():
        while (message := other.receive()[0]) is not None:
            found.append(message)

    listener = threading.Thread(target=listen)
    listener.start()
    for thread in threads:
        thread.start()
    for i in range(count):
        one.send(("main", i, b"y" * 100_000))
    for thread in threads:
        thread.join()
    one.send(None)
    listener.join()
    assert [message[1] for message in found if message[0] == "main"] == list(range(count))
    for name in "ab":  # in order, and none twice; some found no room
        numbers = [message[1] for message in found if message[0] == name]
        assert numbers == sorted(set(numbers))
        assert numbers


def test_an_offer_finds_room_or_is_dropped(pair):
    one, other = pair
    begin = time.monotonic()
    for i in range(2000):
        one.offer((i, b"x" * 1000))
    assert time.monotonic() - begin < 5
    one.socket.setblocking(False)
    with pytest.raises(BlockingIOError):  # full: a send would wait
        one.send("last" * 100_000)
    first, _ = other.receive()
    assert first[0] == 0


def test_an_offer_where_a_send_is_interrupted_follows_it(pair, monkeypatch):
    """As a finaliser may do that logs."""
    one, other = pair
    send_some, offered = one.send_some, []

    def interrupted(data, *arguments, **options):
        if not offered:
            offered.append(one.offer("offered"))
        left = send_some(data[:10], *arguments, **options)
        return data[10 - len(left) :]

    monkeypatch.setattr(one, "send_some", interrupted)
    one.send("sent")
    one.send("after")
    assert [other.receive()[0] for _ in range(3)] == ["sent", "offered", "after"]


def test_an_offer_to_nobody(pair):
    one, other = pair
    other.close()
    one.offer("hello")
