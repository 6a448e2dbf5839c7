"use strict";
// Sorting, filtering, and one voice at a time. Without this script the page is complete, worst first.
const form = document.getElementById("controls");
const cards = [...document.querySelectorAll("article")].map((node, place) => ({
  node, place, about: JSON.parse(node.dataset.about), words: node.textContent.toLowerCase(),
}));

let order = form.elements.sort.value;

function worse(name) {
  if (name === "id") return (a, b) => a.about.id.localeCompare(b.about.id, undefined, { numeric: true });
  const bad = (card) => card.about.sort[name] ?? Infinity; // what could not be measured comes first
  return (a, b) => (bad(a) === bad(b) ? a.place - b.place : bad(b) > bad(a) ? 1 : -1);
}

function update() {
  const wanted = new FormData(form);
  const flags = wanted.getAll("flag");
  const words = wanted.get("words").trim().toLowerCase();
  let shown = 0;
  for (const card of cards) {
    const fits = (!wanted.get("speaker") || card.about.speaker === wanted.get("speaker"))
      && (!flags.length || flags.some((flag) => card.about.flags.includes(flag)))
      && card.words.includes(words);
    card.node.hidden = !fits;
    shown += fits;
  }
  if (wanted.get("sort") !== order) { // moving the cards stops what is playing
    order = wanted.get("sort");
    document.getElementById("cards").append(...[...cards].sort(worse(order)).map((card) => card.node));
  }
  document.getElementById("count").textContent = `${shown} of ${cards.length} shown`;
}

form.hidden = false;
form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());

document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("audio")) if (player !== event.target) player.pause();
}, true);

for (const link of document.querySelectorAll("a.voice")) {
  const player = document.getElementById(link.hash.slice(1))?.querySelector("audio");
  if (!player) { link.remove(); continue; }
  link.setAttribute("role", "button");
  const toggle = (event) => {
    event.preventDefault();
    if (player.paused) { player.currentTime = 0; player.play(); } else player.pause();
  };
  link.addEventListener("click", toggle);
  link.addEventListener("keydown", (event) => { if (event.key === " ") toggle(event); });
}
