"""``GET /docs``: a page that reads ``/openapi.json`` and lets one try what it says. It needs nothing from the network."""

from __future__ import annotations


def docs_page() -> str:
    """The page."""
    return _PAGE


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>wgtorch</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#2c2a33;background:#fbf9f4}
details{background:#fff;border:1px solid #ddd3bf;border-radius:.5rem;margin:.6rem 0;padding:.4rem .8rem}
summary{cursor:pointer}code,pre,textarea{font:13px/1.45 ui-monospace,monospace}
pre{overflow:auto;max-height:24rem;background:#f3eee3;padding:.6rem}
textarea{width:100%;box-sizing:border-box}b.m{display:inline-block;width:4.5rem;color:#b5532a}input{width:20rem}img,video{max-width:100%}
</style></head><body>
<h1 id="title">wgtorch</h1><p>
<label>Key: <input id="key" type="password" autocomplete="off" placeholder="only where the server asks for one"></label>
<button id="load">Load</button></p><p id="about"></p><main id="all"></main>
<script>
const $ = id => document.getElementById(id);
const headers = more => ({...more, ...($("key").value ? {Authorization: "Bearer " + $("key").value} : {})});
const make = (tag, text, more) => Object.assign(document.createElement(tag), {textContent: text ?? "", ...more});
function sample(schema, all, depth = 0) {
  if (!schema || depth > 6) return null;
  if (schema.$ref) return sample(all.components.schemas[schema.$ref.split("/").pop()], all, depth + 1);
  if (schema.example !== undefined) return schema.example;
  if (schema.anyOf || schema.oneOf) return sample((schema.anyOf || schema.oneOf)[0], all, depth + 1);
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === "object")
    return Object.fromEntries((schema.required || []).map(n => [n, sample((schema.properties || {})[n], all, depth + 1)]));
  return {string: "", integer: 1, number: 1, boolean: false, array: []}[type] ?? null;
}
async function load() {
  const answer = await fetch("openapi.json", {headers: headers({})});
  if (!answer.ok) { $("about").textContent = "The server asks for a key."; return; }
  const all = await answer.json();
  $("title").textContent = all.info.title; $("about").textContent = all.info.description || ""; $("all").replaceChildren();
  for (const [path, methods] of Object.entries(all.paths)) for (const [method, entry] of Object.entries(methods)) {
    const box = make("details"), head = make("summary");
    head.append(make("b", method.toUpperCase(), {className: "m"}), make("code", path), " " + (entry.summary || ""));
    box.append(head);
    const content = entry.requestBody && entry.requestBody.content["application/json"];
    const out = make("div"), accept = make("select");
    for (const type of Object.keys((entry.responses["200"] || entry.responses["201"] || {content: {}}).content || {"application/json": 1}))
      if (!type.includes("x-wgtorch")) accept.append(make("option", type));
    const where = make("input", null, {value: path}), text = make("textarea", null, {rows: 8});
    if (content) { text.value = JSON.stringify(sample(content.schema, all), null, 1); }
    const button = make("button", "Send", {onclick: async () => {
      const sent = {method: method.toUpperCase(), headers: headers({Accept: accept.value || "application/json"})};
      if (content) { sent.body = text.value; sent.headers["Content-Type"] = "application/json"; }
      out.replaceChildren(make("p", "..."));
      const got = await fetch(where.value.replace(/^\\//, ""), sent), type = got.headers.get("content-type") || "";
      out.replaceChildren(make("p", got.status + " " + type));
      if (/image|video|audio/.test(type)) out.append(make(type.startsWith("image") ? "img" : type.split("/")[0], null,
        {src: URL.createObjectURL(await got.blob()), controls: true}));
      else { const raw = await got.text(); let shown = raw; try { shown = JSON.stringify(JSON.parse(raw), null, 1); } catch {}
        out.append(make("pre", shown.slice(0, 20000))); }
    }});
    box.append(make("p", entry.description || ""), where, " ", accept, " ", button);
    if (content) { box.append(text); const more = make("details"); more.append(make("summary", "Schema"),
      make("pre", JSON.stringify(content.schema, null, 1))); box.append(more); }
    box.append(out); $("all").append(box);
  }
}
$("load").onclick = load; load();
</script></body></html>
"""
