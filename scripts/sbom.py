# /// script
# requires-python = ">=3.11"
# dependencies = ["cyclonedx-python-lib>=11"]
# ///
"""Print what an image is made of, as a software bill of materials (CycloneDX 1.6, JSON).

    uv run scripts/sbom.py IMAGE > image.cdx.json

The image itself is asked: its Python distributions and its Debian packages, with versions, licences
where a distribution names one, and the package URLs by which advisories are found. Models are no
part of it, nor what a wheel brings inside (FFmpeg in PyAV, for example).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

_LOOK = """
import importlib.metadata, json, subprocess
lines = subprocess.run(
    ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\\\\n"],
    capture_output=True, text=True, check=True,
).stdout.splitlines()
release = dict(
    line.rstrip().split("=", 1) for line in open("/etc/os-release") if "=" in line
)
print(json.dumps({
    "python": sorted(
        (each.name, each.version, each.metadata.get("License-Expression"))
        for each in importlib.metadata.distributions()
    ),
    "debian": [line.split() for line in lines],
    "release": release["VERSION_ID"].strip('"'),
}))
"""


def bill(image: str, identity: str, found: dict[str, Any]) -> Bom:
    """Return the bill of an image.

    Args:
        image: as it is called.
        identity: its id, `sha256:...`.
        found: what `look` has seen in it.
    """
    parts = (*_distributions(found["python"]), *_packages(found))
    whole = Component(type=ComponentType.CONTAINER, name=image, version=identity, bom_ref="image")
    bom = Bom(components=parts)
    bom.metadata.component = whole
    bom.register_dependency(whole, parts)
    return bom


def _distributions(found: list[list[str | None]]) -> Iterator[Component]:
    factory = LicenseFactory()
    for name, version, license_expression in found:
        url = PackageURL("pypi", None, str(name).lower().replace("_", "-"), version)
        yield Component(
            name=str(name),
            version=version,
            purl=url,
            bom_ref=str(url),
            licenses=[factory.make_from_string(license_expression)] if license_expression else (),
        )


def _packages(found: dict[str, Any]) -> Iterator[Component]:
    for name, version, architecture in found["debian"]:
        where = {"arch": architecture, "distro": f"debian-{found['release']}"}
        url = PackageURL("deb", "debian", name, version, where)
        yield Component(name=name, version=version, purl=url, bom_ref=str(url))


def look(image: str) -> tuple[str, dict[str, Any]]:
    """Return an image's id, and what is installed in it; its own program is not run.

    Raises:
        subprocess.CalledProcessError: there is no such image, or no Python or dpkg in it.
    """
    identity = _docker("image", "inspect", "--format", "{{.Id}}", image)
    confined = ("--rm", "--network", "none", "--cap-drop", "ALL", "--entrypoint", "python3")
    return identity, json.loads(_docker("run", *confined, identity, "-c", _LOOK))


def _docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments],  # noqa: S607 - whichever the caller uses
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def main() -> int:
    """Print the bill of the image that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    try:
        bom = bill(sys.argv[1], *look(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        return error.returncode  # Docker has said why
    print(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
