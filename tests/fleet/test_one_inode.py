"""One directory under two names, on a real Pi: what two Scores want there differently has one owner."""

from __future__ import annotations

from harmony_control.device import Device
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import FileScore
from tests.fleet.ground import Host, code_of, statuses, until


async def test_a_file_in_a_directory_that_is_mounted_twice_has_one_owner(
    device: Device[PiTopology], host: Host
) -> None:
    box = host.box
    box.run(["mkdir", "-p", "/srv/one", "/srv/two"])
    box.run(["mount", "--bind", "/srv/one", "/srv/two"])
    one = FileScore(path="/srv/one/conf", content="one\n")
    two = FileScore(path="/srv/two/conf", content="two\n")

    def is_decided(state: ActualState) -> bool:
        return {"one", "two"} <= state.scores.keys() and code_of(state, "two") != "RUNNING"

    await device.put({"one": one, "two": two})
    state = await until(device, is_decided)
    assert statuses(state)["one"] in {"SUCCESS", "NOOP"}
    assert code_of(state, "two") == "OwnershipConflict"
    assert box.run(["cat", "/srv/one/conf"]).stdout == b"one\n"
    await device.remove("one", "two")
    box.run(["umount", "/srv/two"])
