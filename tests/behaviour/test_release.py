"""What a release is made of: one version, a changelog of one form, and a list of the parts
that is whole."""

import json
import os
import re
import shutil
import subprocess

import pytest

import support

VERSION = (support.ROOT / "VERSION").read_text().strip()
CHANGELOG = (support.ROOT / "CHANGELOG.md").read_text()


def files_of_the_project():
    for folder, below, names in os.walk(support.ROOT):
        below[:] = [name for name in below if name not in (".git", "build", "__pycache__")]
        for name in names:
            yield os.path.join(folder, name)


def test_the_version_is_written_down_once():
    found = set()
    for path in files_of_the_project():
        with open(path, "rb") as file:
            if re.search(rb"(?<![\d.])" + re.escape(VERSION).encode() + rb"(?![\d.]*\d)", file.read()):
                found.add(os.path.relpath(path, support.ROOT))
    # The changelog's heading is checked below, and by the package's build.
    assert found == {"VERSION", "CHANGELOG.md"}


def test_the_program_has_that_version():
    said = subprocess.run([support.AGENT, "--version"], capture_output=True, text=True, timeout=60)
    assert said.stdout.split()[:2] == ["reconify-agent", VERSION]


def test_the_changelog_keeps_its_form():
    versions = re.findall(r"(?m)^## (.*)$", CHANGELOG)
    for heading in versions:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - (\d{4}-\d\d-\d\d|unreleased)", heading), heading
    assert versions[0].startswith(f"[{VERSION}] - ")
    assert len(set(versions)) == len(versions)
    kinds = set(re.findall(r"(?m)^### (.*)$", CHANGELOG))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.skipif(not shutil.which("dpkg-query") or not shutil.which("objdump"),
                    reason="Debian's packages are asked")
@pytest.mark.skipif("san" in support.BUILD.name, reason="sanitizers are no part of a release")
def test_every_library_stands_in_the_list_of_parts_with_its_licence():
    listed = json.loads(subprocess.run(
        ["sh", support.ROOT / "packaging" / "sbom.sh", "dynamic", support.AGENT, "reconify-agent"],
        capture_output=True, text=True, timeout=60, check=True).stdout)
    parts = {part["name"]: part for part in listed["packages"]}
    assert parts.pop("reconify-agent")["versionInfo"] == VERSION
    needed = re.findall(r"NEEDED +lib([a-z0-9]+?)\d?[-.]", subprocess.run(
        ["objdump", "-p", support.AGENT], capture_output=True, text=True, timeout=60).stdout)
    assert len(needed) >= 6
    for library in needed:
        if library == "pthread":
            library = "c"  # one package, and from glibc 2.34 on one library
        assert any(name.startswith("lib" + library) for name in parts), library
    assert all(part["licenseConcluded"] != "NOASSERTION" and part["versionInfo"]
               for part in parts.values())
    linked = {each["relatedSpdxElement"] for each in listed["relationships"]
              if each["relationshipType"] == "DYNAMIC_LINK"}
    assert linked == {part["SPDXID"] for part in parts.values()}
