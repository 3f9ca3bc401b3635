"""How charts look: colours that the colour-blind can tell apart, legible sizes, a white ground.

`CONFIG` is a Vega-Lite configuration. `render` puts it under every chart; nothing is registered anywhere.
"""

from __future__ import annotations

from typing import Any, Final

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D5D5D", "#8C510A")
"""The colours of Okabe and Ito (2008), their yellow and black replaced by what is legible on white.

Where more than these are needed, or two lines cross, tell them apart by shape or label too.
"""

EMPHASIS = CATEGORIES[1]
PLAIN = CATEGORIES[0]
MUTED = "#9A9A9A"

SEQUENTIAL: Final = "viridis"
"""From little to much; even steps of brightness, also in grey."""

INK = "#1F1F1F"
GRID = "#E3E3E3"
FONT = "DejaVu Sans, Verdana, Arial, sans-serif"

TEXT_SIZE = 13
TITLE_SIZE = 16

UTC_CLOCK: Final = (
    "utcseconds(datum.value) ? utcFormat(datum.value, ':%S') : "
    "utchours(datum.value) || utcminutes(datum.value) ? utcFormat(datum.value, '%H:%M') : "
    "utcFormat(datum.value, '%d %b')"
)
"""The labels of an axis of times, in Vega's words: of 24 hours. Vega by itself writes 08:46 for 20:46."""

SCALE_TEXT: Final = {
    "labelColor": INK,
    "labelFontSize": TEXT_SIZE,
    "titleColor": INK,
    "titleFontSize": TEXT_SIZE,
}
"""The words at an axis, a legend or the head of a panel."""

CONFIG: dict[str, Any] = {
    "background": "white",
    "font": FONT,
    "padding": 14,
    "title": {
        "anchor": "start",
        "color": INK,
        "fontSize": TITLE_SIZE,
        "subtitleColor": INK,
        "subtitleFontSize": TEXT_SIZE,
        "offset": 12,
    },
    "axis": {
        **SCALE_TEXT,
        "labelLimit": 320,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "gridColor": GRID,
        "domainColor": MUTED,
        "tickColor": MUTED,
    },
    "legend": {
        **SCALE_TEXT,
        "labelLimit": 320,
        "titleFontWeight": "normal",
        "symbolSize": 110,
    },
    "header": SCALE_TEXT,
    "text": {"color": INK, "fontSize": TEXT_SIZE},
    "point": {"filled": True, "size": 90},
    "line": {"strokeWidth": 2.5},
    "rule": {"strokeWidth": 1.5},
    "range": {"category": list(CATEGORIES)},
    "view": {"stroke": None, "continuousWidth": 480, "continuousHeight": 300},
}
