// Who is here: a small figure in the colours of one's look, and words.

import { element, shape } from "./dom.js";

const COAT = {
  red: "#d62c2c", blue: "#2c5ce8", yellow: "#fcd428", white: "#fafaf6", green: "#2ea83e", black: "#221e28", grey: "#8a8e98", brown: "#804c26",
  orange: "#fa8418", purple: "#9838c8",
};
const HAIR = { black: "#1e1a20", brown: "#6e3e1e", yellow: "#f8d854", white: "#f0f0f0", red: "#ce4c1c" };
const HAT = { hood: null, cap: "#306e54", wide: "#e0ba68", crown: "#f8c838", scarf: null };

function figure(look) {
  const coat = COAT[look.coat] || "#888", hair = HAIR[look.hair] || "#555";
  const wide = look.build === "large" ? 10 : look.build === "small" ? 6 : 8, tall = look.build === "small" ? 2 : 0;
  const x = (12 - wide) / 2;
  const box = (x0, y, w, h, fill) => shape("rect", { x: x0, y: y + tall, width: w, height: h, fill });
  return shape("svg", { viewBox: "0 0 12 16", "shape-rendering": "crispEdges", "aria-hidden": "true" },
    box(3, 2, 6, 4, look.hat === "hood" ? coat : hair), box(4, 4, 4, 3, "#ecbc94"), box(4, 5, 1, 1, "#181418"), box(7, 5, 1, 1, "#181418"),
    look.hat === "wide" ? box(1, 2, 10, 1, HAT.wide) : null, look.hat === "cap" ? box(3, 1, 7, 2, HAT.cap) : null,
    look.hat === "crown" ? box(4, 1, 4, 2, HAT.crown) : null, box(x, 7, wide, 5 - tall, coat), look.hat === "scarf" ? box(4, 7, 4, 1, "#40babe") : null,
    box(4, 12 - tall, 1, 4, "#40323a"), box(7, 12 - tall, 1, 4, "#40323a"));
}

const BEAST = { // # is fur or feathers, o an eye, + horn or beak
  horse: ["........#...", "........###.", "........#o##", "........####", "..#########.", "#.########..", "#.########..", "..#.#..#.#..", "..#.#..#.#..", "..#.#..#.#.."],
  dog: ["............", "........##..", "#.......#o#.", "#......#####", ".#########..", "..########..", "..########..", "..#.#..#.#..", "..#.#..#.#.."],
  wolf: ["........#.#.", "........###.", ".......##o##", "##.#########", "##########..", "#.########..", "..#######...", "..#.#..#.#..", "..#.#..#.#.."],
  goat: ["......+.+...", ".......+++..", "........##..", "........#o#.", "........###.", "##########..", "..########..", "..########..", "..#.#..#.#..", "..#.#..#.#.."],
  bear: ["........#.#.", "....########", "..#######o##", ".###########", ".##########.", ".#########..", ".#########..", ".##.##.##...", ".##.##.##..."],
  raven: ["............", "......###...", ".....##o#...", ".....####++.", "....#####...", "..#######...", ".#######....", "####.##.....", "##..+.+....."],
};

function beast(kind, coat) {
  const rows = BEAST[kind] || BEAST.dog, top = 15 - rows.length;
  const boxes = (marks, grow, fill) => rows.flatMap((row, y) => [...row].map((mark, x) => marks.includes(mark) ?
    shape("rect", { x: x - grow, y: y + top - grow, width: 1 + 2 * grow, height: 1 + 2 * grow, fill }) : null));
  return shape("svg", { viewBox: "-0.5 -0.5 13 17", "shape-rendering": "crispEdges", "aria-hidden": "true" }, boxes("#+o", 0.4, "#75656c"), boxes("#", 0, COAT[coat] || "#888"), boxes("+", 0, "#e0ba68"));
}

export function person(entry) {
  const facts = [entry.role, entry.mood, entry.here ? null : `at ${entry.place}`].filter(Boolean).join(", ");
  return element("li", { class: entry.here ? null : "away" },
    entry.kind === "person" || entry.hero ? figure(entry.look) : beast(entry.kind, entry.look.coat),
    element("div", {}, element("b", {}, entry.hero ? `${entry.name} (you)` : entry.name), element("small", {}, facts),
      entry.carries.length && !entry.hero ? element("small", {}, `carries ${entry.carries.join(", ")}`) : null,
      entry.goal ? element("small", {}, `wants: ${entry.goal}`) : null));
}
