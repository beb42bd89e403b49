"use strict";
// Sorts tables by column, enlarges figures, opens what a link leads to. Without it everything can be read all the same.
document.documentElement.classList.add("live");

function sortKey(cell) {
  const text = cell ? cell.textContent.trim() : "";
  if (text === "" || text === "\u2013") return null;
  const below = text.startsWith("<");
  const number = parseFloat(text.replace(/^</, "").replace(/(\d),(?=\d{3})/g, "$1"));
  return Number.isNaN(number) ? text : below ? number * 0.999 : number;
}

function compared(a, b, descending) {
  if (a === null || b === null) return (a === null) - (b === null); // what is missing stays last
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return descending ? -order : order;
}

function sortBy(table, column, heading) {
  const descending = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    rows.map((row) => [sortKey(row.cells[column]), row])
      .sort((a, b) => compared(a[0], b[0], descending))
      .forEach(([, row]) => body.append(row));
  }
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    // no button: browsers leave those out where a heading is repeated on the next sheet of paper
    const button = document.createElement("span");
    button.setAttribute("role", "button");
    button.tabIndex = 0;
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(table, column, heading));
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sortBy(table, column, heading);
    });
    heading.append(button);
  });
}

const enlarged = document.createElement("dialog");
enlarged.setAttribute("aria-label", "Enlarged figure");
enlarged.addEventListener("click", () => enlarged.close());
document.body.append(enlarged);
for (const picture of document.querySelectorAll("figure img")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "enlarge";
  button.title = "Enlarge";
  picture.replaceWith(button);
  button.append(picture);
  button.addEventListener("click", () => {
    enlarged.replaceChildren(picture.cloneNode());
    enlarged.showModal();
  });
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
openTarget();
