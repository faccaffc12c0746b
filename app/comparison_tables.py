"""A comparison to take away: for a program, a spreadsheet, a wiki and a paper."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict

from app.comparison import Comparison
from app.records import Record, to_csv, to_json_lines
from app.web.wording import plain

MEASURES = {
    "auroc": "AUROC",
    "fpr95_id_positive": "FPR95 (ID positive)",
    "fpr95_ood_positive": "FPR95 (OOD positive)",
    "aupr_in": "AUPR-in",
    "aupr_out": "AUPR-out",
}
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}  # fmt: skip
_LATEX_SPECIAL = re.compile("[" + re.escape("".join(_LATEX)) + "]")


def comparison_record(comparison: Comparison) -> Record:
    """Flat: each measure with the ends of its 95% interval; plain numbers and strings."""
    low, high = asdict(comparison.low), asdict(comparison.high)
    record: Record = {
        "detector": comparison.detector,
        "title": comparison.contender.title,
        "decides": comparison.contender.decides,
        "ood": comparison.ood,
        "known_images": comparison.known,
        "ood_images": comparison.unknown,
    }
    for name, value in asdict(comparison.metrics).items():
        record |= {name: value, f"{name}_low": low[name], f"{name}_high": high[name]}
    leak = asdict(comparison.contender.leak)
    return record | {
        "fit_s": comparison.contender.fit_s,
        "us_per_image": comparison.contender.us_per_image,
        **{f"leak_{name}": value for name, value in leak.items()},
    }


def to_markdown(compared: Sequence[Comparison]) -> str:
    """A table as GitHub draws it, with 95% intervals in brackets."""
    return "".join(
        f"| {' | '.join(row)} |\n"
        for row in (_HEAD, _alignment(), *(_cells(c, str, plain) for c in compared))
    )


def to_latex(compared: Sequence[Comparison]) -> str:
    """A `tabular` that needs no package, with 95% intervals in brackets."""
    columns = "".join("l" if rule == ":--" else "r" for rule in _alignment())
    head = " & ".join(map(latex_safe, _HEAD)).replace("µs", r"$\mu$s")
    rows = [" & ".join(_cells(c, latex_safe, latex_safe)) for c in compared]
    body = "".join(f"{row} \\\\\n" for row in rows)
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\hline\n{head} \\\\\n\\hline\n{body}\\hline\n"
        "\\end{tabular}\n"
    )


def latex_safe(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return _LATEX_SPECIAL.sub(lambda found: _LATEX[found.group()], " ".join(text.split()))


def interval(value: float, low: float, high: float) -> str:
    """A measure with the ends of its interval."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


WRITERS: dict[str, Callable[[Sequence[Comparison]], bytes]] = {
    "json": lambda compared: to_json_lines([comparison_record(c) for c in compared]),
    "csv": lambda compared: to_csv([comparison_record(c) for c in compared]),
    "markdown": lambda compared: to_markdown(compared).encode(),
    "latex": lambda compared: to_latex(compared).encode(),
}

_HEAD = (
    "Detector", "OOD set", *MEASURES.values(), "fit (s)", "µs/image", "training vs held-out AUROC",
)  # fmt: skip


def _alignment() -> list[str]:
    return [":--" if column < 2 else "--:" for column in range(len(_HEAD))]


def _cells(
    comparison: Comparison, own: Callable[[str], str], foreign: Callable[[str], str]
) -> list[str]:
    """A row; `own` and `foreign` escape text from Kindred and from outside."""
    metrics, low, high = map(asdict, (comparison.metrics, comparison.low, comparison.high))
    contender = comparison.contender
    return [
        own(contender.title),
        foreign(comparison.ood),
        *(interval(metrics[name], low[name], high[name]) for name in MEASURES),
        f"{contender.fit_s:.2f}",
        f"{contender.us_per_image:.1f}",
        interval(contender.leak.auroc, contender.leak.low, contender.leak.high),
    ]
