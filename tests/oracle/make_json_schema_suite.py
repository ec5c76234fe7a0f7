"""Makes json_schema_suite.json: the public JSON-Schema-Test-Suite as grammar_schema_test reads it.

usage: make_json_schema_suite.py FOLDER > json_schema_suite.json
FOLDER is `json` in the sdist of PyPI's jsonschema 4.26.0 (pip download --no-deps --no-binary :all: jsonschema==4.26.0).
Drafts 2020-12, 7 and 4; of the optional tests, those of the formats that are enforced. format.json is left out: it takes formats for annotations.
"""
import json
import sys
from pathlib import Path

FORMATS = ["date", "time", "date-time", "uuid", "ipv4"]


def main():
    folder = Path(sys.argv[1])
    cases = []
    for draft, dialect in (("draft2020-12", None), ("draft7", "http://json-schema.org/draft-07/schema#"), ("draft4", "http://json-schema.org/draft-04/schema#")):
        files = sorted((folder / "tests" / draft).glob("*.json")) + [folder / "tests" / draft / f"optional/format/{name}.json" for name in FORMATS]
        for file in files:
            if file.name == "format.json" or not file.is_file():
                continue
            for group in json.loads(file.read_text()):
                schema = group["schema"]
                if dialect and isinstance(schema, dict):
                    schema = {"$schema": dialect, **schema}
                tests = [[test["description"], test["data"], test["valid"]] for test in group["tests"]]
                cases.append({"name": f"{draft}/{file.stem}: {group['description']}", "schema": schema, "tests": tests})
    json.dump({"license": (folder / "LICENSE").read_text(), "cases": cases}, sys.stdout, ensure_ascii=False, separators=(",", ":"))
    print()


main()
