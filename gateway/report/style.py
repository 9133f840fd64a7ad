"""The page's style: light and dark by the reader's choice, and paper."""

STYLE = """
:root{--ink:#1b1f24;--dim:#5b6570;--rule:#d5dae0;--soft:#f3f5f7;--page:#fff;--line:#1f5fa8;--good:#2f7d4f;
--unknown:#8a94a0;--suspect:#b36b00;--fail:#c0262d;--missing:#c9ced4;--blue:#1f6fd0;--yellow:#8a6d00;--orange:#b85400;
--red:#c0262d}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--dim:#9aa5b1;--rule:#343c45;--soft:#1d2329;--page:#12161a;
--line:#6fb1f2;--good:#56b27d;--unknown:#7d8894;--suspect:#eba63c;--fail:#ff6b6b;--missing:#454e58;--blue:#6fb1f2;
--yellow:#e5c84a;--orange:#f29a4a;--red:#ff6b6b}}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,"Noto Sans","Noto Sans CJK SC",sans-serif;color:var(--ink);background:var(--page)}
main{max-width:1100px;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;padding-top:.6rem;border-top:2px solid var(--rule)}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:.3rem 0 .8rem}
.dim,small{color:var(--dim)}
small{font-size:.85em}
code{font:.85em/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
.tiles{list-style:none;display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.6rem;padding:0;
margin:1.2rem 0}
.tiles li{background:var(--soft);border-radius:6px;padding:.6rem .8rem;color:var(--dim)}
.tiles b{display:block;font-size:1.25rem;color:var(--ink);font-variant-numeric:tabular-nums;white-space:nowrap}
.wide{overflow-x:auto;margin:0 0 .6rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th{text-align:left;font-weight:600;color:var(--dim);white-space:nowrap;border-bottom:1px solid var(--rule)}
td,th{padding:.3rem .7rem .3rem 0;vertical-align:top}
td{border-bottom:1px solid var(--rule);min-width:3.2rem}
time{white-space:nowrap}
.tiles li:last-child{grid-column:span 2}
td small,td code{display:inline-block;max-width:34rem}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.bar{display:flex;height:14px;border-radius:3px;overflow:hidden;margin:.6rem 0}
.bar span{flex:1 1 0;min-width:2px}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;padding:0;margin:.4rem 0 1rem;font-size:.9rem}
.key i{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;margin-right:.4rem;vertical-align:-1px}
.key svg{display:inline-block;width:auto;height:.7rem;margin-right:.4rem}
.bar .good,i.good{background:var(--good)}.bar .unknown,i.unknown{background:var(--unknown)}
.bar .suspect,i.suspect{background:var(--suspect)}.bar .fail,i.fail{background:var(--fail)}
.bar .missing,i.missing{background:var(--missing)}
.sev{font-weight:600}.sev.blue{color:var(--blue)}.sev.yellow{color:var(--yellow)}.sev.orange{color:var(--orange)}
.sev.red{color:var(--red)}
figure{margin:0 0 1.4rem;break-inside:avoid}
figcaption{overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--dim)}
path{fill:none}
.axis{stroke:var(--rule)}
.line{stroke:var(--line);stroke-width:1.2;stroke-linejoin:round;stroke-linecap:round}
path.suspect{stroke:var(--suspect);stroke-width:6;stroke-linecap:round}
path.fail{stroke:var(--fail);stroke-width:1.6}
.strip{width:100%;min-width:9rem;height:14px;background:var(--missing);border-radius:2px}
.strip .full{fill:var(--good)}.strip .some{fill:var(--suspect)}
tr,li{break-inside:avoid}h2,h3{break-after:avoid}
@media (max-width:640px){body{font-size:14px}.tiles{grid-template-columns:1fr 1fr}.tiles b{font-size:1.05rem}
svg text{font-size:22px}.wide table{width:max-content;min-width:100%}td small,td code{max-width:15rem}
td{max-width:18rem}}
@media print{:root{--ink:#000;--dim:#444;--rule:#bbb;--soft:#f1f1f1;--page:#fff;--line:#1f5fa8;--good:#2f7d4f;
--unknown:#8a94a0;--suspect:#b36b00;--fail:#c0262d;--missing:#ccc;--blue:#1f6fd0;--yellow:#8a6d00;--orange:#b85400;
--red:#c0262d;color-scheme:light}
@page{margin:14mm}html{font-size:10px}body{font-size:1rem}th{white-space:normal}.strip{min-width:6rem}
.tiles li:last-child{grid-column:span 1}.tiles b{font-size:1.1rem}svg text{font-size:14px}
main{max-width:none;padding:0}.wide{overflow:visible}
.tiles{grid-template-columns:repeat(5,1fr)}td,th{padding:.2rem .5rem .2rem 0}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
