// The same as the grid, as a table in pages.

import { useEffect, useState } from "preact/hooks";
import { AXES, fleet } from "./fleet";
import { Glyph } from "./glyph";
import { Nothing } from "./gridview";
import { html, use } from "./ui";
import { chosen, go, lens, redraw, route, search, shown } from "./view";
import type { Axis } from "./api";

const PAGE = 50;
type Column = "id" | Axis | "reason" | "version";
const COLUMNS: [Column, string][] = [
  ["id", "Device"],
  ["device", "Presence"],
  ["update", "Update"],
  ["workloads", "Workloads"],
  ["reason", "Reason"],
  ["version", "Agent"],
];

export function TableView() {
  const seen = use(shown);
  use(redraw);
  const opened = use(route).device;
  const [sort, setSort] = useState<{ by: Column; isDown: boolean }>({ by: "id", isDown: false });
  const [page, setPage] = useState(0);
  // Another order, or other devices: a page somewhere in the middle would be of nothing in particular.
  useEffect(() => setPage(0), [sort, use(search), use(chosen), use(lens)]);
  const pages = Math.max(1, Math.ceil(seen.places.length / PAGE));
  const now = Math.min(page, pages - 1);
  useEffect(() => {
    if (page !== now) setPage(now);
  });
  if (!seen.places.length) return html`<div class="tablebox"><${Nothing} /></div>`;
  const sorted = order(seen.places, sort.by, sort.isDown).slice(now * PAGE, (now + 1) * PAGE);
  const heading = ([by, title]: [Column, string]) => html`
    <th scope="col" class=${by} aria-sort=${sort.by === by ? (sort.isDown ? "descending" : "ascending") : "none"}>
      <button type="button" onClick=${() => setSort({ by, isDown: sort.by === by && !sort.isDown })}>
        ${title}<span aria-hidden="true">${sort.by === by ? (sort.isDown ? " ▾" : " ▴") : ""}</span>
      </button>
    </th>`;
  return html`
    <div class="tablebox" tabindex="0" role="region" aria-label="Table of devices">
      <table class="devices">
        <thead><tr>${COLUMNS.map(heading)}<th scope="col" class="labels">Labels</th></tr></thead>
        <tbody>${sorted.map((place) => html`<${Row} key=${fleet.ids[place]} place=${place} isOpen=${fleet.ids[place] === opened} />`)}</tbody>
      </table>
    </div>
    <nav class="pages" aria-label="Pages">
      <button type="button" disabled=${now === 0} onClick=${() => setPage(now - 1)}>Previous</button>
      <span>${now * PAGE + 1}–${Math.min(seen.places.length, (now + 1) * PAGE)} of ${seen.places.length}</span>
      <button type="button" disabled=${now >= pages - 1} onClick=${() => setPage(now + 1)}>Next</button>
    </nav>`;
}

function Row({ place, isOpen }: { place: number; isOpen: boolean }) {
  const id = fleet.ids[place] ?? "";
  const cell = (axis: Axis) => html`<td class=${axis} data-label=${axis}>
    <span class="state"><${Glyph} mark=${fleet.mark(place, axis)} />${fleet.state(place, axis)}</span>
  </td>`;
  return html`<tr class=${isOpen ? "open" : ""}>
    <th scope="row" class="id"><a href=${`#/device/${encodeURIComponent(id)}`} onClick=${(event: Event) => {
      event.preventDefault();
      go(id);
    }}>${id}</a></th>
    ${AXES.map(cell)}
    <td class="reason">${fleet.reasons[place]}</td>
    <td class="version">${fleet.versions[place]}</td>
    <td class="labels">${Object.entries(fleet.labels[place] ?? {}).map(([name, value]) => html`<span class="label">${name}=${value}</span>`)}</td>
  </tr>`;
}

function order(places: Int32Array, by: Column, isDown: boolean): number[] {
  const found = Array.from(places);
  if (by === "id") return isDown ? found.reverse() : found;
  const key = (place: number): number | string =>
    by === "reason" ? (fleet.reasons[place] ?? "") : by === "version" ? (fleet.versions[place] ?? "") : fleet.mark(place, by);
  const keys = new Map(found.map((place) => [place, key(place)]));
  const sign = isDown ? -1 : 1;
  return found.sort((one, other) => {
    const [a, b] = [keys.get(one) as number | string, keys.get(other) as number | string];
    return a < b ? -sign : a > b ? sign : one - other;
  });
}
