// The map as far as it is known; a place beside this one is a button that goes there.

import { shape } from "./dom.js";

const COLORS = {
  sea: "#4f8fc9", river: "#6fb3c9", meadow: "#8cc265", hills: "#6da35a", mountains: "#8f8ca0", desert: "#e0b46c", forest: "#3f7d4d", marsh: "#7d8a5c",
};
const SIGNS = {
  house: "⌂", castle: "♜", windmill: "✢", tower: "▮", tent: "▲", ship: "⚓", bridge: "⌒", well: "◍", shrine: "✝", cave: "◗", stones: "⁝", inn: "⌂", ruin: "⚿",
};
const CELL = 46;

export function drawMap(map, go) {
  const xs = map.places.map((place) => place.at[0]), ys = map.places.map((place) => place.at[1]);
  const left = Math.min(...xs), top = Math.max(...ys);
  const width = (Math.max(...xs) - left + 1) * CELL, height = (top - Math.min(...ys) + 1) * CELL;
  const svg = shape("svg", { viewBox: `-4 -4 ${width + 8} ${height + 8}`, role: "group", "aria-label": `${map.known} of ${map.count} places are known` });
  for (const place of map.places) {
    const x = (place.at[0] - left) * CELL, y = (top - place.at[1]) * CELL;
    const words = place.name ? `${place.name}: ${[place.terrain, place.state === "whole" ? null : place.state, place.landmark].filter(Boolean).join(", ")}` : "unknown";
    const way = place.way && !place.here;
    const group = shape("g", {
      class: `place${place.here ? " here" : ""}`, transform: `translate(${x} ${y})`, role: way ? "button" : "img", tabindex: way ? 0 : null,
      "aria-label": `${words}${place.here ? " (you are here)" : ""}${way ? `, go ${place.way}` : ""}`,
    },
    shape("title", {}, words),
    shape("rect", { width: CELL - 6, height: CELL - 6, x: 3, y: 3, rx: 5, fill: COLORS[place.terrain] || "transparent", "stroke-dasharray": place.name ? null : "3 3" }),
    place.landmark ? shape("text", { x: CELL / 2, y: CELL / 2 + 2, "text-anchor": "middle", class: "sign" }, SIGNS[place.landmark] || "•") : null,
    place.here ? shape("circle", { cx: CELL / 2, cy: 12, r: 4, fill: "var(--here)", stroke: "#fff" }) : null,
    shape("text", { x: CELL / 2, y: CELL - 8, "text-anchor": "middle", textLength: (place.name || "").length > 8 ? CELL - 8 : null, lengthAdjust: "spacingAndGlyphs" }, (place.name || "?").slice(0, 11)));
    if (way) {
      const act = () => go(`go ${place.way}`);
      group.addEventListener("click", act);
      group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } });
    }
    svg.append(group);
  }
  return svg;
}
