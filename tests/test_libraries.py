"""Libraries of others on the device: the reviewed file and no other, with its licence, named in the SBOM."""

from dataclasses import replace
from pathlib import Path

import pytest
from sekisho_tools import flashimage, libraries, sbom
from sekisho_tools.errors import ToolError

MICRODOT = libraries.LIBRARIES[0]


@pytest.mark.requirement("ORG03")
def test_the_library_is_the_reviewed_file_with_its_licence(tmp_path: Path) -> None:
    written = libraries.write(tmp_path)
    assert [path.name for path in written] == ["microdot.py", "microdot.LICENSE"]
    assert "Permission is hereby granted, free of charge" in written[1].read_text()
    flashimage.check_mpy(flashimage.compile_device(written[0], "esp32"), "microdot")


@pytest.mark.requirement("ORG03")
def test_another_version_or_another_byte_is_refused() -> None:
    for other in (replace(MICRODOT, version="2.6.0"), replace(MICRODOT, digest="00" * 32)):
        with pytest.raises(ToolError) as refused:
            libraries.source(other)
        assert refused.value.code == "LIBRARY"
    with pytest.raises(ToolError, match="not installed"):
        libraries.source(replace(MICRODOT, name="no-such-package"))


@pytest.mark.requirement("ORG06")
def test_the_sbom_of_a_release_names_the_library() -> None:
    document = sbom.parse(sbom.for_release("acme", "lamp", "1.0.0", [], stock=True))
    found = {one["name"]: one for one in sbom.components(document)}["microdot"]
    assert (found["version"], found["purl"]) == ("2.7.0", "pkg:pypi/microdot@2.7.0")
    assert found["hashes"][0]["content"] == MICRODOT.digest
    assert {"name": "sekisho:licence", "value": "MIT"} in found["properties"]


def test_a_roomy_stock_image_holds_it_and_a_small_one_does_not() -> None:
    assert "microdot.mpy" in flashimage.device_modules("X = 1\n", "esp32")
    assert "microdot.mpy" not in flashimage.device_modules("X = 1\n", "esp32", lean=True)
