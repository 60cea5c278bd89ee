"""The style sheet of the report: one column, readable on a phone and on paper, light and dark."""

STYLE = """
:root { --paper: #fcfcfa; --card: #ffffff; --ink: #1d2126; --soft: #5c6670; --rule: #dcdfe3; --cell: #eef0f2;
  --good: #17754a; --bad: #b3261e; --accent: #1565a0; --p0: #2a78b5; --p1: #d98a1f; --p2: #3d9970; --p3: #8d6cab; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14171a; --card: #1c2024; --ink: #e6e8ea; --soft: #9aa4ae;
  --rule: #343a41; --cell: #262b31; --good: #55c08d; --bad: #f0837a; --accent: #6db3e8; --p0: #4c9bd8; --p1: #dd9a3f;
  --p2: #55b58b; --p3: #a98cc6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 820px; margin: 0 auto; padding: 20px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 16px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 12px; }
h3 { font-size: 1rem; margin: 20px 0 8px; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px; margin: 18px 0; }
.verdict { border-left: 6px solid; border-radius: 6px; padding: 12px 16px; margin: 0; background: var(--card); }
.verdict strong { font-size: 1.1rem; }
.verdict.good { border-color: var(--good); } .verdict.good strong { color: var(--good); }
.verdict.bad { border-color: var(--bad); } .verdict.bad strong { color: var(--bad); }
ul.tiles { list-style: none; display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; padding: 0;
  margin: 16px 0; }
ul.tiles li { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 12px; }
ul.tiles b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
ul.tiles span, small, .command, summary { color: var(--soft); font-size: .82rem; }
.command { margin: 12px 0 0; overflow-wrap: anywhere; }
code { font: .95em ui-monospace, "DejaVu Sans Mono", monospace; }
.scroll { overflow-x: auto; }
.figure { margin-bottom: 14px; }
svg { display: block; width: 100%; max-width: 620px; height: auto; margin: 0 auto;
  font: 13px system-ui, "DejaVu Sans", sans-serif; }
svg text { fill: var(--ink); } svg .small { fill: var(--soft); font-size: 12px; } svg .value { font-weight: 600; }
svg .grid { stroke: var(--rule); } svg .stem { stroke: var(--rule); stroke-width: 2; }
svg .dot { fill: var(--accent); } svg .dot.last { fill: var(--good); }
svg .cell { fill: var(--cell); } svg .right { fill: var(--accent); } svg .wrong { fill: var(--bad); }
svg .count { font-size: 12px; } svg .count.strong, svg .inside { fill: var(--card); } svg .inside { font-size: 11px; }
svg .part0 { fill: var(--p0); } svg .part1 { fill: var(--p1); } svg .part2 { fill: var(--p2); } svg .part3 { fill: var(--p3); }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td { overflow-wrap: anywhere; } table.wide td { white-space: nowrap; overflow-wrap: normal; }
ul.images { list-style: none; display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 12px;
  padding: 0; }
ul.images li { display: flex; flex-direction: column; font-size: .82rem; line-height: 1.3; }
ul.images img { width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated; background: var(--cell);
  border-radius: 6px; border: 2px solid transparent; }
ul.images .wrong img, ul.images .differs img { border-color: var(--bad); }
ul.images .wrong span, ul.images .differs span { color: var(--bad); }
@media print { :root { --paper: #fff; --card: #fff; } body { font-size: 11pt; } main { max-width: none; padding: 0; }
  section { break-inside: avoid-page; border: 0; padding: 0; } * { print-color-adjust: exact; } }
"""
