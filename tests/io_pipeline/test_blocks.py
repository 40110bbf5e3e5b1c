"""Arrays in shared memory: where they lie, who sees them, and that nothing is left of them."""

import fcntl
import gc
import mmap
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from io_pipeline import blocks, control_groups
from io_pipeline.blocks import ALIGNMENT, Block, BlockError, Layout, available_memory
from io_pipeline.channel import Channel, ChannelClosed

DTYPES = ["?", "u1", "i1", "u2", "i4", ">i4", "u8", "f2", "f4", "f8", "c8", "c16", "S5", "U3"]
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
ARRAYS = st.dictionaries(
    st.text("abcdefgh_", min_size=1, max_size=4),
    st.tuples(SHAPES, st.sampled_from(DTYPES)),
    max_size=6,
)


class OtherProcess:
    """A process that turns every bit of the blocks that it is sent, and says what was there."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-c", "from tests.io_pipeline import test_blocks as t; t.turn()"]
        self.process = subprocess.Popen(
            [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self.channel = Channel(ours)

    def turn(self, block: Block) -> dict[str, bytes]:
        self.channel.send(block.layout, [block.descriptor])
        return self.channel.receive()[0]

    def close(self) -> None:
        self.channel.close()
        self.process.wait()


def turn() -> None:
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    while True:
        try:
            layout, (descriptor,) = channel.receive()
        except ChannelClosed:
            return
        with Block.attach(descriptor, layout) as block:
            found = {array.name: block[array.name].tobytes() for array in layout.arrays}
            for array in layout.arrays:
                block[array.name].reshape(-1).view(np.uint8)[:] ^= 255
        channel.send(found)


@pytest.fixture(scope="module")
def other() -> Iterator[OtherProcess]:
    process = OtherProcess()
    yield process
    process.close()


def filled(array: np.ndarray[Any, Any], seed: int) -> bytes:
    data = np.random.default_rng(seed).bytes(array.nbytes)
    array.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    return data


def turned(data: bytes) -> bytes:
    return bytes(255 - byte for byte in data)


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:frescod")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def holders(inode: int) -> int:
    """How many descriptors and mappings of a block there are in all processes."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            for line in (process / "maps").read_text().splitlines():
                count += "memfd:frescod" in line and int(line.split()[4]) == inode
            for name in os.listdir(process / "fd"):
                with suppress(OSError):  # it has just been closed
                    count += os.stat(process / "fd" / name).st_ino == inode
    return count


@given(ARRAYS)
def test_arrays_lie_aligned_one_after_the_other(arrays):
    layout = Layout.of(**arrays)
    assert {array.name: (array.shape, np.dtype(array.dtype)) for array in layout.arrays} == {
        name: (shape, np.dtype(dtype)) for name, (shape, dtype) in arrays.items()
    }
    end = 0
    for array in layout.arrays:
        assert array.offset % ALIGNMENT == 0
        assert array.offset >= end
        end = array.offset + array.nbytes
    assert end <= layout.nbytes
    assert layout.nbytes % mmap.PAGESIZE == 0
    assert pickle.loads(pickle.dumps(layout)) == layout


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ARRAYS)
def test_any_arrays_pass_to_another_process_and_back(other, arrays):
    with Block.create(Layout.of(**arrays)) as block:
        assert all(not block[name].tobytes().strip(b"\0") for name in arrays)
        written = {name: filled(block[name], seed) for seed, name in enumerate(arrays)}
        assert other.turn(block) == written
        for name, data in written.items():
            assert block[name].tobytes() == turned(data)
            assert block[name].shape == arrays[name][0]
            assert block[name].dtype == np.dtype(arrays[name][1])


def test_an_array_is_the_memory_and_no_copy():
    with Block.create(Layout.of(a=((3, 4), "f4"), b=((), "i8"))) as block:
        first, second = block["a"], block["a"]
        assert first.ctypes.data == second.ctypes.data
        first[1, 2] = 5
        assert second[1, 2] == 5
        assert block.tensor("a").data_ptr() == first.ctypes.data
        block.tensor("a")[0, 0] = 7
        assert first[0, 0] == 7
        block["b"][...] = 9
        assert block.tensor("b").item() == 9
        with Block.attach(os.dup(block.descriptor), block.layout) as again:
            assert again["a"][1, 2] == 5
        del first, second


def test_arrays_are_known_by_name():
    with Block.create(Layout.of(a=((2,), "u1"))) as block:
        assert "a" in block
        assert "b" not in block
        with pytest.raises(KeyError):
            block["b"]


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2,), object), ((2,), [("x", "i4"), ("y", "i4")]), ((-1,), "u1")]
)
def test_what_has_no_meaning_elsewhere_is_refused(shape, dtype):
    with pytest.raises(ValueError, match="bad: no array"):
        Layout.of(bad=(shape, dtype))


def test_memory_is_taken_when_it_is_allocated_and_not_before():
    with Block.create(Layout.of(a=((8 << 20,), "u1"))) as block:
        assert os.fstat(block.descriptor).st_blocks == 0
        block.allocate()
        assert os.fstat(block.descriptor).st_blocks * 512 == block.nbytes == 8 << 20
        block["a"][5] = 1
        block.allocate()
        assert block["a"][5] == 1


def test_the_size_is_sealed():
    with Block.create(Layout.of(a=((5000,), "u1"))) as block:
        for size in (0, 1 << 20):
            with pytest.raises(PermissionError):
                os.ftruncate(block.descriptor, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(block.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_a_block_of_another_size_is_refused():
    with Block.create(Layout.of(a=((5000,), "u1"))) as block:
        before = descriptors()
        with pytest.raises(ValueError, match="a block of 8192 bytes, not 4096"):
            Block.attach(os.dup(block.descriptor), Layout.of(a=((5,), "u1")))
        assert descriptors() == before


def test_nothing_is_left_of_a_closed_block(other):
    before = descriptors(), mappings()
    for _ in range(100):
        with Block.create(Layout.of(a=((1 << 16,), "u1"))) as block:
            block.allocate()
            block["a"][:] = 1
            other.turn(block)
        block.close()
    assert (descriptors(), mappings()) == before
    with pytest.raises(ValueError, match="closed"):
        block["a"]


def test_an_array_in_use_outlives_its_block_and_takes_the_memory_with_it():
    before = descriptors(), mappings()
    with Block.create(Layout.of(a=((10,), "u1"))) as block:
        array = block["a"]
        tensor = block.tensor("a")
    array[3] = 4
    assert tensor[3] == 4
    assert mappings() == before[1] + 1
    del array, tensor
    gc.collect()
    assert (descriptors(), mappings()) == before


def test_a_block_survives_its_creator_and_goes_with_its_last_holder():
    ours, theirs = socket.socketpair()
    code = """if True:
        import os, signal, socket, sys
        from io_pipeline.blocks import Block, Layout
        from io_pipeline.channel import Channel
        block = Block.create(Layout.of(a=((1 << 20,), "u1")))
        block.allocate()
        block["a"][:] = 42
        Channel(socket.socket(fileno=int(sys.argv[1]))).send(block.layout, [block.descriptor])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    arguments = [sys.executable, "-c", code, str(theirs.fileno())]
    creator = subprocess.run(arguments, pass_fds=[theirs.fileno()], check=False)
    assert creator.returncode == -signal.SIGKILL
    theirs.close()
    channel = Channel(ours)
    layout, (descriptor,) = channel.receive()
    channel.close()
    with Block.attach(descriptor, layout) as block:
        inode = os.fstat(descriptor).st_ino
        assert block["a"].min() == block["a"].max() == 42
        assert holders(inode) == 3  # a mapping has a descriptor of its own
    assert holders(inode) == 0


def test_more_than_there_is_is_refused_with_the_memory_needed():
    size = available_memory() + (1 << 30)
    with Block.create(Layout.of(a=((size,), "u1"))) as block:
        with pytest.raises(BlockError, match=rf"no memory for a block of {-(-size >> 20)} MiB: "):
            block.allocate()
        assert os.fstat(block.descriptor).st_blocks == 0


def test_a_block_that_cannot_be_created_leaves_nothing():
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(BlockError, match="a block of 2 MiB: File too large"):
            Block.create(Layout.of(a=((2 << 20,), "u1")))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert descriptors() == before


def test_control_groups_limit_what_is_available(monkeypatch, tmp_path):
    group = tmp_path / "sys/fs/cgroup/service"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("1000000\n")
    (group / "memory.current").write_text("700000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 50000\nactive_file 100000\n")
    (group.parent / "memory.max").write_text("max\n")
    own = tmp_path / "proc/self/cgroup"
    own.parent.mkdir(parents=True)
    own.write_text("4:memory:/elsewhere\n0::/service\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 4096 kB\n")
    monkeypatch.setattr(blocks, "Path", lambda path: tmp_path / path.lstrip("/"))
    monkeypatch.setattr(control_groups, "ROOT", tmp_path / "sys/fs/cgroup")
    monkeypatch.setattr(control_groups, "MEMBERSHIP", own)
    assert available_memory() == 450000
    (group / "memory.max").write_text("max\n")
    assert available_memory() == 4 << 20


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA")
def test_without_cuda_nothing_is_pinned():
    with Block.create(Layout.of(a=((10,), "u1"))) as block:
        assert not block.pin()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_pinned_memory_is_copied_without_waiting():
    for _ in range(2):  # again at what may be the same address
        with Block.create(Layout.of(a=((1 << 20,), "f4"))) as block:
            block.allocate()
            assert block.pin()
            assert block.pin()
            assert block.tensor("a").is_pinned()
            block["a"][:] = 3
            assert block.tensor("a").to("cuda", non_blocking=True).sum().item() == 3 << 20
