#!/usr/bin/env python3
"""Writes forwarder/tests/conventions.txt: the names of the OpenTelemetry semantic conventions that Spantap's are checked against.

    pip download --no-deps opentelemetry-semantic-conventions==0.66b2 && unzip opentelemetry_semantic_conventions-*.whl -d DIR
    tools/conventions.py DIR >forwarder/tests/conventions.txt
"""
import pathlib
import re
import sys

ATTRIBUTES = """client container cpu disk error host http network os otel process server service telemetry thread url
    user_agent""".split()
METRICS = ["http", "process"]
CONSTANT = re.compile(r'^[A-Z0-9_]+: Final = "([^"]+)"\n(?:"""(.*?)""")?', re.M | re.S)


def constants(base, groups, kind):
    """Name, stability, text of each constant; the stable ones first, which the others repeat."""
    for group in groups:
        for stability, folder in (("stable", kind), ("development", f"_incubating/{kind}")):
            path = base / folder / f"{group}_{kind}.py"
            if not path.exists():
                continue
            for name, text in CONSTANT.findall(path.read_text()):
                if "in favor of stable" not in text:
                    yield name, "deprecated" if "Deprecated" in text else stability, text


def main():
    base = pathlib.Path(sys.argv[1]) / "opentelemetry/semconv"
    package = next(pathlib.Path(sys.argv[1]).glob("*.dist-info/METADATA")).read_text()
    release = re.search(r"^Version: (.+)$", package, re.M).group(1)
    version = re.findall(r"schemas/([0-9.]+)", (base / "schemas.py").read_text())[-1].rstrip(".")
    print(f"# OpenTelemetry semantic conventions {version}: names, stability; of metrics also instrument and unit.")
    print(f"# Made by tools/conventions.py from the Python package opentelemetry-semantic-conventions {release} (Apache-2.0).")
    lines = {f"attribute {name} {stability}" for name, stability, _ in constants(base, ATTRIBUTES, "attributes")}
    for name, stability, text in constants(base, METRICS, "metrics"):
        instrument, unit = re.search(r"Instrument: (\S+)", text), re.search(r"Unit: (.+)", text)
        lines.add(f"metric {name} {stability} {instrument and instrument.group(1)} {unit and unit.group(1).strip()}")
    print("\n".join(sorted(lines)))


main()
