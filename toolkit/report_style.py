# SPDX-License-Identifier: Apache-2.0
"""The style sheet of the HTML report, for light and dark screens and for paper."""

from __future__ import annotations

STYLE = """
:root{--bg:#f6f6f3;--panel:#fff;--ink:#1c1f24;--dim:#6b7280;--line:#e4e4df;--accent:#0f766e;
--good:#0f766e;--goodbg:#d9f2ec;--bad:#b42318;--badbg:#fde5e1;--before:#c9ccd3;
--t1:#2a9d8f;--t2:#3b6fb6;--t3:#8a5fb0;--t4:#d9893b;--t5:#c2556b;--t6:#a5abb5}
@media(prefers-color-scheme:dark){:root{--bg:#121417;--panel:#1b1e23;--ink:#e8e9ec;--dim:#9aa1ac;
--line:#2c3037;--accent:#3fc1ae;--good:#5fd3bf;--goodbg:#12362f;--bad:#ff9c8f;--badbg:#43201c;
--before:#4a505b;--t1:#23877b;--t2:#34629f;--t3:#77519a;--t4:#b97430;--t5:#a5475b;--t6:#5c636e}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:44px 24px 72px}
header{margin-bottom:26px}
.kicker{margin:0;color:var(--accent);font-size:12px;font-weight:650;letter-spacing:.09em;
text-transform:uppercase}
h1{margin:2px 0 8px;font-size:34px;line-height:1.15;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{margin:0 0 4px;font-size:19px;letter-spacing:-.01em}
h3{margin:20px 0 8px;font-size:13px;font-weight:600;color:var(--dim)}
h3 span{color:var(--ink);font-weight:650;margin-left:6px}
section p{margin:0 0 14px;color:var(--dim);max-width:74ch}
.target{margin:0;color:var(--dim)}
section{background:var(--panel);border:1px solid var(--line);border-radius:14px;padding:24px 26px;
margin-bottom:20px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(168px,1fr));gap:14px;padding:0;
background:none;border:0}
.card{background:var(--panel);border:1px solid var(--line);border-radius:14px;padding:16px 18px}
.card h3{margin:0}
.card p{margin:0;font-size:13px;overflow-wrap:anywhere}
.card p.big{margin:2px 0 4px;font-size:32px;line-height:1.15;font-weight:680;color:var(--ink);
letter-spacing:-.02em}
.card:first-child .big{color:var(--accent)}
.big small{font-size:17px;font-weight:600;color:var(--dim)}
.badge{display:inline-block;padding:2px 9px;border-radius:99px;font-size:12px;font-weight:600;
background:var(--line);color:var(--dim);margin-right:6px;white-space:nowrap}
.badge.good{background:var(--goodbg);color:var(--good)}
.badge.bad{background:var(--badbg);color:var(--bad);white-space:normal}
svg{display:block;width:100%;height:auto}
svg text{font-size:12px;fill:#fff;font-weight:560}
svg text.dim{font-weight:400;opacity:.85}
svg text.axis{fill:var(--dim);font-weight:400}
svg text.end{text-anchor:end}svg text.mid{text-anchor:middle}svg text.start{text-anchor:start}
svg text.callout{fill:var(--ink);font-size:14px;font-weight:650;stroke:var(--panel);
stroke-width:5px;stroke-linejoin:round;paint-order:stroke}
rect.t1{fill:var(--t1)}rect.t2{fill:var(--t2)}rect.t3{fill:var(--t3)}rect.t4{fill:var(--t4)}
rect.t5{fill:var(--t5)}rect.t6{fill:var(--t6)}
g:hover>rect{filter:brightness(1.12)}
.grid{stroke:var(--line);stroke-width:1}
.line{fill:none;stroke:var(--accent);stroke-width:2.5;stroke-linejoin:round;opacity:.55}
.dot{fill:var(--accent)}.faint{fill:var(--before)}
.lost{fill:var(--panel);stroke:var(--accent);stroke-width:1.5}.faint.lost{stroke:var(--before)}
.chosen{fill:var(--accent);stroke:var(--panel);stroke-width:3}
.legend{display:flex;flex-wrap:wrap;gap:16px;margin:14px 0 0;font-size:13px}
.legend span{display:inline-flex;align-items:center;gap:6px}
.legend i{width:12px;height:12px;border-radius:3px}
i.t1{background:var(--t1)}i.t2{background:var(--t2)}i.t3{background:var(--t3)}
i.t4{background:var(--t4)}i.t5{background:var(--t5)}i.t6{background:var(--t6)}
.scroll{overflow-x:auto;margin:0 -26px;padding:0 26px}
table{width:100%;border-collapse:collapse;font-size:13px}
th{text-align:right;font-weight:600;color:var(--dim);padding:6px 10px;white-space:nowrap;
border-bottom:1px solid var(--line)}
td{text-align:right;padding:7px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
tr:last-child td{border-bottom:0}
th:first-child,td:first-child{text-align:left;padding-left:0}
td.name{white-space:normal;overflow-wrap:anywhere;font-weight:560;min-width:230px}
td em{font-style:normal;color:var(--dim)}
.bars{width:16%;min-width:110px;text-align:left}
.bar{height:6px;border-radius:3px;background:var(--before);margin:2px 0}
.bar.after{background:var(--accent)}
pre{margin:12px 0 18px;padding:14px 16px;border-radius:10px;background:var(--bg);
border:1px solid var(--line);overflow-x:auto;font-size:13px;white-space:pre-wrap;
overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:6px 22px;margin:0;font-size:14px}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
ul{margin:0;padding-left:18px;font-size:14px;color:var(--dim)}
@media(max-width:640px){main{padding:24px 14px}section{padding:18px}.scroll{margin:0 -18px;
padding:0 18px}h1{font-size:26px}dl{grid-template-columns:1fr;gap:0 0}dd{margin-bottom:8px}}
@media print{body{background:#fff}section,.card{break-inside:avoid}}
"""
