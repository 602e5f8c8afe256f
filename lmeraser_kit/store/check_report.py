"""Check an audit report of a store without the kit: its arithmetic, its dates and its chain of hashes.

    python check_report.py report.json [--hash HASH] [--name NAME --salt SALT]

It needs Python alone. `--hash` is that of a certificate that you were given: is it in the report? A report whose every
hash was made anew is consistent in itself, and only such a hash from elsewhere gives it away. `--name` is a uid or an
owner, `--salt` what its person was given: which certificate is about them? What the report says of the samples
themselves cannot be checked from it: whoever has the store can (`Store.verify`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path


def digest(*parts: str) -> str:
    """SHA-256 over parts, each preceded by its length in eight bytes, in hex."""
    data = [part.encode() for part in parts]
    return hashlib.sha256(b"".join(len(one).to_bytes(8, "little") + one for one in data)).hexdigest()


def problems(report: dict) -> list[str]:
    """What is wrong with a report, in words; nothing if it is consistent."""
    requests = {one["id"]: one for one in report["requests"]}
    certificates = [one["record"] for one in report["certificates"]]
    return [
        *_chain(report["certificates"]),
        *_numbers(certificates, report),
        *_requests(certificates, requests),
        *_summary(certificates, requests, report),
    ]


def _chain(certificates: list[dict]) -> list[str]:
    found, hashed, root = [], "", None
    for number, one in enumerate(certificates, 1):
        record = one["record"]
        if record["id"] != number:
            found.append(f"certificate {number} is missing, or not in its place")
        if digest("certificate", json.dumps(record, sort_keys=True)) != one["hash"]:
            found.append(f"certificate {record['id']} does not have the hash that is stated")
        if record["previous"] != hashed or (root is not None and record["root_before"] != root):
            found.append(f"certificate {record['id']} does not follow the one before")
        hashed, root = one["hash"], record["root_after"]
    return found


def _numbers(certificates: list[dict], report: dict) -> list[str]:
    found, held = [], 0
    for one in certificates:
        held += one["n_added"] - one["n_forgotten"]
        if one["n_samples"] != held:
            found.append(f"after certificate {one['id']}, {held} samples are held, and it states {one['n_samples']}")
        held = one["n_samples"]
    last = certificates[-1]
    if (report["samples_held"], report["root"]) != (last["n_samples"], last["root_after"]):
        found.append("what is held is not what the last certificate states")
    verified = report["verification"]
    if verified and (verified["n_samples"], verified["root"]) != (last["n_samples"], last["root_after"]):
        found.append("what was verified is not what the last certificate states")
    return found


def _requests(certificates: list[dict], requests: dict[int, dict]) -> list[str]:
    found, done, finished = [], set(), ""
    for one in certificates:
        if one["finished"] < max([finished, *one["arrivals"]]):
            found.append(f"certificate {one['id']} is of a time before its requests, or before the last certificate")
        finished = one["finished"]
        for number, arrived, deadline in zip(one["requests"], one["arrivals"], one["deadlines"], strict=True):
            asked = requests.get(number, {})
            stated = (asked.get("certificate"), asked.get("arrived"), asked.get("deadline"))
            if stated != (one["id"], arrived, deadline) or number in done:
                found.append(f"request {number} is not what certificate {one['id']} states")
            done.add(number)
    open_ones = {number for number, one in requests.items() if one["certificate"] is None}
    if done | open_ones != set(range(1, len(requests) + 1)) or done & open_ones:
        found.append("there is a request without a certificate that is not said to wait, or a number is missing")
    return found


def _summary(certificates: list[dict], requests: dict[int, dict], report: dict) -> list[str]:
    missed, kept = [], 0
    for one in certificates:
        for number, deadline in zip(one["requests"], one["deadlines"], strict=True):
            late = deadline is not None and deadline < one["finished"]
            missed += [number] if late else []
            kept += deadline is not None and not late
    waiting = [one for one in requests.values() if one["certificate"] is None]
    overdue = [one["id"] for one in waiting if one["deadline"] is not None and one["deadline"] < report["made"]]
    deadlines = {"kept": kept, "missed": missed, "waiting": len(waiting), "overdue": overdue}
    costs = {
        "samples_learned_again": sum(sum(one["clusters_tuned"].values()) for one in certificates[1:]),
        "sample_gradients": sum(one["sample_gradients"] for one in certificates[1:]),
        "seconds": sum(one["seconds"] for one in certificates[1:]),
    }
    found = [f"deadlines are {deadlines}, and it states {report['deadlines']}"] * (report["deadlines"] != deadlines)
    return found + [f"costs are {costs}, and it states {report['costs']}"] * (report["costs"] != costs)


def main() -> int:
    """Check the report that the command line names; 1 if something is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--hash", help="of a certificate that you were given")
    parser.add_argument("--name", help="a uid or an owner", default="")
    parser.add_argument("--salt", help="what its person was given", default="")
    asked = parser.parse_args()
    try:
        report = json.loads(asked.report.read_text())
        found = problems(report)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        print(f"this is no audit report that can be read: {error!r}")
        return 1
    hashes = {one["hash"]: one["record"]["id"] for one in report["certificates"]}
    if asked.hash and asked.hash not in hashes:
        found.append(f"there is no certificate with the hash {asked.hash}")
    if asked.name:
        wanted = {digest(kind, asked.salt, asked.name) for kind in ("uid", "owner")}
        about = [one["record"]["id"] for one in report["certificates"] if wanted & set(one["record"]["commitments"])]
        print(f"certificates about {asked.name!r}: {', '.join(map(str, about)) or 'none'}")
        found += [] if about else [f"no certificate is about {asked.name!r} with this salt"]
    for problem in found:
        print(f"WRONG: {problem}")
    last = report["certificates"][-1]["hash"]
    n = f"{len(report['requests'])} requests and {len(report['certificates'])} certificates"
    print(f"{n}: {'not ' if found else ''}consistent. Hash of the last certificate: {last}")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
