"""How a report looks: paper by day, dark by night, one column on a phone."""

STYLE = """
:root { --paper: #f4efe4; --card: #fffdf8; --edge: #ddd2bd; --ink: #26242d; --soft: #6f6757; --accent: #a3401f; --bad: #a01c1c;
 --here: #d7372b;
 color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #16151c; --card: #201f29; --edge: #383544; --ink: #ece7dc; --soft: #a79f91;
 --accent: #f0a25c; --bad: #ff8f85; --here: #ff6a55; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1.4rem; background: var(--paper); color: var(--ink); font: 17px/1.55 Georgia, "DejaVu Serif", serif; }
main { max-width: 66rem; margin: auto; }
h1 { font-size: 1.7rem; line-height: 1.25; white-space: pre-line; margin: 0 0 .3rem; }
h2 { margin: 0 0 .6rem; color: var(--accent); font-size: 1.15rem; }
.soft, details, nav, figcaption { font-family: system-ui, sans-serif; } .soft { color: var(--soft); font-size: .85rem;
 font-weight: normal; }
article { background: var(--card); border: 1px solid var(--edge); border-radius: 12px; padding: 1.3rem; margin: 1.2rem 0; }
.board { display: grid; grid-template-columns: minmax(0, 21rem) minmax(0, 1fr); gap: 1.4rem; }
.pictures { display: grid; gap: .6rem; align-content: start; }
.pictures img { width: 100%; border-radius: 8px; } img.small { image-rendering: pixelated; } .pictures audio { width: 100%; }
.told { margin: 0; min-width: 0; } .told dt { color: var(--soft); font: 12px/1.3 system-ui, sans-serif; letter-spacing: .05em; }
.told dd { margin: 0 0 .8rem; white-space: pre-line; overflow-wrap: anywhere; }
.told .action { color: var(--accent); font-style: italic; } .told .outcome { font-size: 1.1rem; }
 .told .seen, .told .verdict { color: var(--soft); font-size: .9rem; }
nav { display: flex; gap: 4px; overflow-x: auto; padding: 4px 0 8px; position: sticky; top: 0; background: var(--paper); }
nav a { flex: none; color: var(--soft); font-size: 11px; text-align: center; text-decoration: none; } nav a:hover { color: var(--accent);
 }
nav img { display: block; width: 44px; height: 44px; object-fit: cover; border-radius: 6px; } nav div { display: block; width: 44px;
 height: 44px; border-radius: 6px; background: var(--edge); }
.map { max-width: 30rem; margin: 1rem 0; } .map svg { width: 100%; height: auto; background: var(--card); border: 1px solid var(--edge);
 border-radius: 10px; }
.map rect { stroke: var(--edge); } .map .here rect { stroke: var(--here); stroke-width: 3; }
.map text { font: 600 7px system-ui, sans-serif; fill: var(--ink); text-anchor: middle; paint-order: stroke; stroke: var(--card);
 stroke-width: 2.5px; }
details { margin-top: .5rem; font-size: .85rem; } summary { cursor: pointer; color: var(--soft); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: .3rem .6rem;
 border-top: 1px solid var(--edge); overflow-wrap: anywhere; } th { color: var(--soft); font-weight: normal; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; }
.bad { color: var(--bad); } .was { color: var(--soft); text-decoration: line-through; }
@media (max-width: 46rem) { body { padding: 1rem .7rem; } article { padding: .9rem; } .board { grid-template-columns: minmax(0, 1fr); } }
"""
