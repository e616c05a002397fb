"""The learning curve as a part of a report: the answer first, then the curve and its check."""

from __future__ import annotations

from tutelage.core import html
from tutelage.core.html_lines import Dot, band_chart
from tutelage.data.curve import Curve


def section(curve: Curve, measured_on: str) -> list[html.Html]:
    """Return the cards that show a curve; `measured_on` says what was trained and scored."""
    if curve.gain is not None and curve.enough:
        worth = curve.gain[1] > 0.005
        head = html.verdict(
            "good" if worth else "note",
            "More rows would help" if worth else "More rows would bring little",
            _capital(curve.sentence) + ".",
        )
    else:
        head = html.verdict("warn", "Too few rows to say what more would bring",
                            _capital(curve.sentence) + ".")  # fmt: skip
    dots = [
        Dot(p.rows, p.low, p.accuracy, p.high, faint=p.rows not in curve.fitted)
        for p in curve.points
    ]
    line = [(f.rows, f.low, f.accuracy, f.high) for f in curve.line]
    last = curve.points[-1].rows if curve.points else 0
    chart = band_chart(
        line, dots, mark=(last, "all your rows") if line else None, x_label="training rows",
        y_label=f"accuracy; the band holds it with {curve.confidence:.0%} confidence",
    )  # fmt: skip
    body: list[object] = [chart]
    if curve.law is not None:
        law = curve.law
        body.append(
            html.paragraph(
                f"The curve: error = {law.scale:.3g} × rows^(−{law.exponent:.2f}) + "
                f"{law.floor:.3g}."
                + (" Grey points have too few rows for it." if any(d.faint for d in dots) else "")
            )
        )
    if curve.check is not None:
        check = curve.check
        body.append(
            html.paragraph(
                f"Its own test: from the points up to {check['from_rows']:,.0f} rows it expects "
                f"{check['expected']:.1%} ({check['low']:.1%} to {check['high']:.1%}) at "
                f"{check['rows']:,.0f}; measured were {check['measured']:.1%}."
            )
        )
    lead = f"Each point is a training on a part of the rows. {measured_on}"
    return [head, html.section("Learning curve", *body, lead=lead)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
