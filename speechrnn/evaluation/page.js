"use strict";

for (const listing of document.querySelectorAll(".listing")) {
  const body = listing.querySelector("tbody");
  const rows = Array.from(body.rows);
  const words = rows.map((row) => row.textContent.toLowerCase());
  const heads = Array.from(listing.querySelectorAll("th"));
  const search = listing.querySelector("input[type=search]");
  const only = listing.querySelector(".only input");
  const count = listing.querySelector("output");
  const collator = new Intl.Collator(undefined, { numeric: true });

  const key = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : collator.compare(a, b));

  const sort = (column) => {
    const head = heads[column];
    const first = "value" in (rows[0]?.cells[column].dataset ?? {}) ? "descending" : "ascending";
    const last = first === "ascending" ? "descending" : "ascending";
    const order = head.ariaSort === first ? last : first;
    for (const other of heads) other.ariaSort = other === head ? order : "none";
    const keyed = rows.map((row) => [key(row, column), row]);
    keyed.sort((a, b) => (order === "ascending" ? 1 : -1) * compare(a[0], b[0]));
    body.replaceChildren(...keyed.map((pair) => pair[1]));
  };

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sort(column));
  });
  if (!search) continue;

  const filter = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      const fits = wanted.every((word) => words[i].includes(word));
      row.hidden = !fits || Boolean(only?.checked && !("marked" in row.dataset));
      shown += !row.hidden;
    });
    count.textContent = `${shown} of ${rows.length}`;
  };

  search.addEventListener("input", filter);
  only?.addEventListener("change", filter);
  filter(); // a browser keeps what was typed before the page was loaded again
}

// What is heard is marked in the picture; a click in the picture goes there.
for (const item of document.querySelectorAll(".case")) {
  const audio = item.querySelector("audio");
  const picture = item.querySelector(".picture > div");
  if (!audio || !picture) continue;
  const { left, right, seconds } = picture.dataset;
  const [from, to, length] = [left, right, seconds].map(Number);
  const cursor = document.createElement("div");
  cursor.className = "cursor";
  cursor.hidden = true;
  picture.append(cursor);
  const follow = () => {
    const place = from + ((to - from) * audio.currentTime) / length;
    const frame = picture.parentElement;
    cursor.hidden = false;
    cursor.style.left = `${100 * place}%`;
    frame.scrollLeft = place * picture.clientWidth - frame.clientWidth / 2;
    if (!audio.paused) requestAnimationFrame(follow);
  };
  audio.addEventListener("play", follow);
  audio.addEventListener("seeked", follow);
  picture.addEventListener("click", (event) => {
    const place = (event.clientX - picture.getBoundingClientRect().left) / picture.clientWidth;
    audio.currentTime = Math.min(length, Math.max(0, (length * (place - from)) / (to - from)));
    audio.play().catch(() => {}); // a pause that comes first is no fault
  });
}
