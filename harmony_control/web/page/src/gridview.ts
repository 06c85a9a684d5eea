// The grid with pointer and keyboard: arrows move, Home and End go to the ends of a row, Enter opens. A line says what
// is in focus, also to who does not see it.

import { useEffect, useRef, useState } from "preact/hooks";
import { AXES, fleet } from "./fleet";
import { system } from "./glyph";
import { Grid, type Layout } from "./grid";
import { html, use } from "./ui";
import { go, lens, redraw, route, shown, theme } from "./view";
import { effect } from "@preact/signals-core";

/** What is said of a device in one line. */
export function describe(place: number): string {
  const states = AXES.map((axis) => fleet.state(place, axis)).join(", ");
  const labels = Object.entries(fleet.labels[place] ?? {}).map(([name, value]) => `${name}=${value}`);
  const rest = [fleet.reasons[place], labels.join(" ")].filter(Boolean).join(" · ");
  return `${fleet.ids[place]}: ${states}${rest ? ` — ${rest}` : ""}`;
}

export function GridView() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const state = useRef<{ grid: Grid; layout: Layout } | null>(null);
  const [focused, setFocused] = useState<string | null>(null);
  const [pointed, setPointed] = useState<string | null>(null);
  const opened = use(route).device;
  const seen = use(shown);
  use(redraw); // what is said of the focused device may have changed

  useEffect(() => {
    const node = canvas.current as HTMLCanvasElement;
    const room = box.current as HTMLDivElement;
    const grid = new Grid(node);
    const lay = () => {
      const { places, number } = shown.peek();
      const layout = grid.show(places, number, lens.peek(), room.clientWidth, room.clientHeight);
      state.current = { grid, layout };
    };
    lay();
    const sizes = new ResizeObserver(lay);
    sizes.observe(room);
    const ends = [
      effect(() => {
        void shown.value;
        lay();
      }),
      effect(() => grid.touch(redraw.value.places)),
      effect(() => {
        void [theme.value, system.value];
        // After the page itself has the new colours.
        requestAnimationFrame(() => grid.recolour());
      }),
    ];
    return () => {
      sizes.disconnect();
      for (const end of ends) end();
    };
  }, []);

  const at = focused === null ? -1 : numberOf(focused);
  const isInFocus = useRef(false);
  useEffect(() => state.current?.grid.setFocus(isInFocus.current ? at : opened ? numberOf(opened) : -1));

  const move = (to: number) => {
    const place = seen.places[Math.max(0, Math.min(seen.places.length - 1, to))];
    if (place === undefined) return;
    setFocused(fleet.ids[place] ?? null);
    const { cell, columns } = (state.current as { layout: Layout }).layout;
    const top = Math.floor(Math.max(0, Math.min(seen.places.length - 1, to)) / columns) * cell;
    const room = box.current as HTMLDivElement;
    if (top < room.scrollTop) room.scrollTop = top;
    else if (top + cell > room.scrollTop + room.clientHeight) room.scrollTop = top + cell - room.clientHeight;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const layout = state.current?.layout;
    if (!layout || event.ctrlKey || event.metaKey || event.altKey) return;
    const { columns } = layout;
    const row = at - (at % columns);
    const moves: Record<string, number> = {
      ArrowRight: at + 1,
      ArrowLeft: at - 1,
      ArrowDown: at + columns < seen.places.length ? at + columns : at,
      ArrowUp: at >= columns ? at - columns : at,
      Home: event.shiftKey ? 0 : row,
      End: event.shiftKey ? seen.places.length - 1 : row + columns - 1,
      PageDown: at + columns * 10,
      PageUp: at - columns * 10,
    };
    const to = moves[event.key];
    if (to !== undefined) move(to);
    else if ((event.key === "Enter" || event.key === " ") && focused !== null) go(focused);
    else return;
    event.preventDefault();
  };
  const pick = (event: MouseEvent): string | null => {
    const grid = state.current?.grid;
    const place = grid ? seen.places[grid.at(event.offsetX, event.offsetY)] : undefined;
    return place === undefined ? null : (fleet.ids[place] ?? null);
  };
  const say = (id: string | null) => {
    const place = id === null ? undefined : fleet.placeOf(id);
    return place === undefined ? "" : describe(place);
  };
  return html`
    <div class="gridbox" ref=${box}>
      <canvas
        ref=${canvas}
        class=${pointed ? "grid pointed" : "grid"}
        tabindex="0"
        role="application"
        aria-roledescription="grid of devices"
        aria-label=${`${seen.places.length} devices. Arrow keys move, Enter opens. The table shows the same.`}
        onKeyDown=${onKeyDown}
        onFocus=${() => {
          isInFocus.current = true;
          if (focused === null || at < 0) move(0);
          else state.current?.grid.setFocus(at);
        }}
        onBlur=${() => {
          isInFocus.current = false;
          state.current?.grid.setFocus(-1);
        }}
        onMouseMove=${(event: MouseEvent) => setPointed(pick(event))}
        onMouseLeave=${() => setPointed(null)}
        onClick=${(event: MouseEvent) => {
          const id = pick(event);
          if (id !== null) {
            setFocused(id);
            go(id);
          }
        }}
      ></canvas>
      ${seen.places.length === 0 && html`<${Nothing} />`}
    </div>
    <p class="line" aria-hidden="true">${say(pointed) || say(focused) || "Point at a device, or move with the arrow keys."}</p>
    <p class="unseen" aria-live="polite">${say(focused)}</p>
  `;
}

function numberOf(id: string): number {
  const place = fleet.placeOf(id);
  return place === undefined ? -1 : (shown.peek().number[place] ?? -1);
}

export function Nothing() {
  return html`<div class="nothing">
    ${fleet.size === 0
      ? html`<h2>No device yet</h2><p>Let the first one in: <code>harmony enroll root@pi-1</code></p>`
      : html`<h2>Nothing matches</h2><p>None of the ${fleet.size} devices is like that.</p>`}
  </div>`;
}
