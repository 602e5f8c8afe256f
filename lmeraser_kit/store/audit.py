"""An audit report of a store: what was asked for, when it was done, at what cost, and how to check that.

`report.json` holds all of it; `report.html` shows it. `check_report.py`, which needs nothing of the kit, checks the
arithmetic, the dates and the chain of hashes of the former.
"""

from __future__ import annotations

import hashlib
import json
from html import escape
from pathlib import Path

import pandas as pd

from lmeraser_kit.ground.files import replace_file
from lmeraser_kit.store.certificate import Certificate, Verification
from lmeraser_kit.store.recorded import Recorded
from lmeraser_kit.store.tombstones import Tombstones

DOES_NOT_PROVE = (
    "A report consistent in itself may have been made anew as a whole: compare the hash of a certificate that somebody "
    "was given. It does not prove that nobody kept a copy elsewhere (Thudi et al. 2022), that requests were recorded "
    "when they arrived, or that the clock was right. Whoever has seen the model before and after a deletion has learnt "
    "something about who left. Without tombstones, nobody can tell whether somebody forgotten was added again."
)
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: left; border-bottom: 1px solid #8888; white-space: nowrap; }
code { white-space: normal; overflow-wrap: anywhere; }
.late { font-weight: bold; text-decoration: underline; }
"""


def audited(
    requests: list[Recorded],
    certificates: list[Certificate],
    made: str,
    verification: Verification | None,
    tombstones: Tombstones | None,
) -> dict:
    """What a report says, as plain data.

    Args:
        requests: All, in order.
        certificates: All, from the fit on.
        made: When the report is made, as text.
        verification: What `Store.verify` has found just now; None if it was not asked.
        tombstones: Of who was forgotten, if they are kept.
    """
    missed = [number for one in certificates for number in one.missed]
    timed = sum(deadline is not None for one in certificates for deadline in one.deadlines)
    waiting = [one for one in requests if one.certificate is None]
    overdue = [one.id for one in waiting if one.deadline is not None and one.deadline < made]
    last, since_the_fit = certificates[-1], certificates[1:]
    verified = None if verification is None else vars(verification) | {"proves": verification.proves}
    return {
        "report": 1,
        "made": made,
        "samples_held": last.n_samples,
        "root": last.root_after,
        "deadlines": {
            "kept": timed - len(missed),
            "missed": missed,
            "waiting": len(waiting),
            "overdue": overdue,
        },
        "costs": {
            "samples_learned_again": sum(sum(one.clusters_tuned.values()) for one in since_the_fit),
            "sample_gradients": sum(one.sample_gradients for one in since_the_fit),
            "seconds": sum(one.seconds for one in since_the_fit),
        },
        "verification": verified,
        "tombstones": None if tombstones is None else {"kept": len(tombstones), "without_a_key": tombstones.blind},
        "requests": [one.public() for one in requests],
        "certificates": [{"hash": one.hash, "record": json.loads(one.record())} for one in certificates],
        "does_not_prove": DOES_NOT_PROVE,
    }


def write_report(folder: Path, report: dict) -> Path:
    """Write `report.json` and `report.html`, whole or not at all. Returns the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(report, indent=1).encode()
    replace_file(folder / "report.json", content)
    replace_file(folder / "report.html", page(report, hashlib.sha256(content).hexdigest()).encode())
    return folder / "report.html"


def page(report: dict, hashed: str) -> str:
    """The report as a page that stands alone; `hashed` is the SHA-256 of `report.json`."""
    deadlines, costs, verified = report["deadlines"], report["costs"], report["verification"]
    stones = report["tombstones"]
    late = [*deadlines["missed"], *deadlines["overdue"]]
    what = "rows of sums written" if report["certificates"][0]["record"]["summed"] else "learned again"
    facts = {
        "made": report["made"],
        "samples held": f"{report['samples_held']:,}",
        "deadlines kept": deadlines["kept"],
        "deadlines missed": f"{len(deadlines['missed'])}; requests: {_list(deadlines['missed'])}",
        "requests waiting": f"{deadlines['waiting']}; of these, past their deadline: {_list(deadlines['overdue'])}",
        f"{what} since the fit": f"{costs['samples_learned_again']:,} samples, {costs['seconds']:.1f} s",
        "verified": "not for this report" if verified is None else f"state {verified['state_hash']}",
        "tombstones": "not kept"
        if stones is None
        else f"{stones['kept']} (of names and images), without a key {stones['without_a_key']}",
        "root over what is held": report["root"],
        "SHA-256 of report.json": hashed,
    }
    rows = [{name: "" if one is None else one for name, one in row.items()} for row in report["requests"]]
    requests = pd.DataFrame(rows).rename(columns={"id": "request", "n": "samples"})
    certificates = pd.DataFrame([_row(one) for one in report["certificates"]])
    proves = f"<p>It proves: {escape(verified['proves'])}</p>" if verified else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Audit report</title><style>{STYLE}</style></head><body>
<h1>Were deletion requests carried out, and in time?</h1>
<p class="{"late" if late else "kept"}">{_verdict(deadlines)}</p>
<table>{"".join(f"<tr><th>{name}</th><td><code>{escape(str(one))}</code></td></tr>" for name, one in facts.items())}
</table>
<h2>Requests</h2><p>The first is the fit.</p><div class="table">{requests.to_html(index=False, border=0)}</div>
<h2>Certificates</h2><p>Each holds the hash of the one before; counts are of samples, times in UTC.</p>
<div class="table">{certificates.to_html(index=False, border=0)}</div>
<h2>What it proves, and what not</h2>{proves}<p>It does not prove: {escape(report["does_not_prove"])}</p>
<h2>Who can check it</h2><p>Anybody with Python, from <code>report.json</code>:
<code>python check_report.py report.json</code> (the kit has that file in <code>lmeraser_kit/store/</code>; it needs
nothing else of it). Who was given a certificate adds <code>--hash</code>; who was given a salt, <code>--name</code> and
<code>--salt</code>. Whoever has the store: <code>Store.open(folder).verify()</code>.</p>
</body></html>
"""


def _verdict(deadlines: dict) -> str:
    missed, overdue = deadlines["missed"], deadlines["overdue"]
    if missed or overdue:
        late = f"Deadlines missed: {len(missed)} (requests: {_list(missed)}); kept: {deadlines['kept']}."
        return late + f" Waiting past their deadline: {len(overdue)} (requests: {_list(overdue)})." * bool(overdue)
    return f"All {deadlines['kept']} deadlines of requests carried out were kept; {deadlines['waiting']} wait."


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _row(one: dict) -> dict:
    record = one["record"]
    return {
        "certificate": record["id"],
        "finished": record["finished"],
        "requests": _list(record["requests"]),
        "forgotten": record["n_forgotten"],
        "added": record["n_added"],
        "rectified": record["n_rectified"],
        "held after": record["n_samples"],
        "rows written" if record["summed"] else "learned again": sum(record["clusters_tuned"].values()),
        "seconds": f"{record['seconds']:.2f}",
        "exact": record["exact"],
        "hash begins": one["hash"][:12],
    }
