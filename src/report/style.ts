/** Colours by meaning, for light and for dark; the same as those of the live page. */
export const colours = `
:root { color-scheme: light dark;
  --paper: #fff; --ink: #1b1f24; --faint: #6a737d; --line: #d8dee4;
  --unfaulted: #eceff2; --clean: #2f6fdb; --zero: #7d8894; --dirty: #d9822b;
  --removed: #8e5bd0; --poisoned: #d1242f; --good: #1a7f37; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171b; --ink: #e3e8ee; --faint: #8b949e; --line: #30363d;
  --unfaulted: #23282e; --clean: #5b9bff; --zero: #98a2ad; --dirty: #f0a04b;
  --removed: #b78bf0; --poisoned: #ff6a69; --good: #56d364; } }`

export const style = `${colours}
body { margin: 0 auto; padding: 24px; max-width: 1040px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 28px 0 6px; }
p { margin: 4px 0 8px; } .faint { color: var(--faint); }
.advice { border-left: 4px solid var(--dirty); padding: 8px 14px; margin: 16px 0; }
.advice.nothing { border-color: var(--good); }
svg { width: 100%; height: auto; display: block; } svg rect { shape-rendering: crispEdges; }
.axis { font: 10px system-ui, sans-serif; fill: var(--faint); }
.frame { fill: none; stroke: var(--line); } .bar { fill: var(--clean); }
.unfaulted { fill: var(--unfaulted); } .clean { fill: var(--clean); } .zero { fill: var(--zero); }
.dirty { fill: var(--dirty); } .removed { fill: var(--removed); } .poisoned { fill: var(--poisoned); }
.f1 { opacity: .4; } .f2 { opacity: .6; } .f3 { opacity: .8; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; list-style: none; margin: 8px 0; }
.legend svg { width: 12px; height: 12px; display: inline-block; vertical-align: -1px; margin-right: 6px; }
table { border-collapse: collapse; } td, th { padding: 2px 18px 2px 0; text-align: left;
  font-variant-numeric: tabular-nums; font-weight: normal; } th { color: var(--faint); }`
