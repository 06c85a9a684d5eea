// The page: who is signed in sees the fleet, as a grid or a table, and one device beside it.

import { effect } from "@preact/signals-core";
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { call, me, type Me, sentence } from "./api";
import { DeviceView } from "./device";
import { fleetName, fleetSize } from "./fleet";
import { startFeed, staleness, stopFeed } from "./feed";
import { Glyph } from "./glyph";
import { GridView } from "./gridview";
import { type Lens, MARKS } from "./marks";
import { RolloutsView } from "./rollouts";
import { SignIn } from "./signin";
import { TableView } from "./table";
import { html, use } from "./ui";
import { chosen, counts, lens, LENSES, route, search, shape, theme } from "./view";

const FEW = 60;
const LENS_WORDS: Record<Lens, string> = { overall: "Overall", device: "Presence", update: "Update", workloads: "Workloads" };

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

function App() {
  const who = use(me);
  if (who === undefined) return null;
  return who === null ? html`<${SignIn} />` : html`<${Signed} who=${who} />`;
}

function Signed({ who }: { who: Me }) {
  const { of, device, logs, rollout } = use(route);
  const chosenShape = use(shape);
  const size = use(fleetSize);
  useEffect(() => {
    startFeed();
    return stopFeed;
  }, []);
  const isGrid = chosenShape === "grid" || (chosenShape === "auto" && size > FEW);
  return html`
    <${Bar} who=${who} isGrid=${isGrid} of=${of} />
    <${Stale} />
    ${of === "rollouts"
      ? html`<${RolloutsView} name=${rollout} who=${who} />`
      : html`<main class=${device ? "body with-device" : "body"}>
      <section class="fleetview" aria-label="Devices">
        <${Legend} />
        ${isGrid ? html`<${GridView} />` : html`<${TableView} />`}
      </section>
      ${device && html`<${DeviceView} id=${device} logs=${logs} />`}
    </main>`}`;
}

function Bar({ who, isGrid, of }: { who: Me; isGrid: boolean; of: "devices" | "rollouts" }) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const focus = (event: KeyboardEvent) => {
      if (event.key !== "/" || event.target instanceof HTMLInputElement) return;
      event.preventDefault();
      input.current?.focus();
    };
    addEventListener("keydown", focus);
    return () => removeEventListener("keydown", focus);
  }, []);
  const signOut = async () => {
    await call("/api/session", { method: "DELETE" }).catch((error: unknown) => console.warn(sentence(error)));
    me.value = null;
  };
  const nextTheme = { auto: "dark", dark: "light", light: "auto" } as const;
  return html`<header class="bar">
    <h1><img src="/icon.svg" alt="" width="22" height="22" /> Harmony <span class="fleet">${use(fleetName)}</span></h1>
    <nav class="segments" aria-label="Parts">
      <a class="button" href="#/" aria-current=${of === "devices" ? "page" : undefined}>Devices</a>
      <a class="button" href="#/rollouts" aria-current=${of === "rollouts" ? "page" : undefined}>Rollouts</a>
    </nav>
    ${of === "devices" && html`<input
      ref=${input}
      type="search"
      class="search"
      placeholder="Search: pi-1, error, site=attic   ( / )"
      aria-label="Search devices by id, state, reason, version or label"
      value=${use(search)}
      onInput=${(event: Event) => (search.value = (event.target as HTMLInputElement).value)}
    />
    <div class="segments" role="group" aria-label="Shown as">
      <button type="button" aria-pressed=${isGrid} onClick=${() => (shape.value = "grid")}>Grid</button>
      <button type="button" aria-pressed=${!isGrid} onClick=${() => (shape.value = "table")}>Table</button>
    </div>`}
    <div class="who">
      <button type="button" class="plain" onClick=${() => (theme.value = nextTheme[theme.value])} aria-label=${`Theme: ${use(theme)}; change it`}>
        ${{ auto: "◐", dark: "●", light: "○" }[use(theme)]}
      </button>
      <span class="me"><strong>${who.name}</strong> <span class="quiet">${who.role}</span></span>
      <button type="button" onClick=${signOut}>Sign out</button>
    </div>
  </header>`;
}

/** Says when what is shown may be old: a page that looks alive and is not, lies. */
function Stale() {
  const why = use(staleness);
  return html`<div role="status" aria-live="polite">${why && html`<p class="stale">Not live: ${why}. What is shown may be old.</p>`}</div>`;
}

/** The lens, and what each mark means and how many have it; each chooses those that are shown. */
function Legend() {
  const numbers = use(counts);
  const picked = use(chosen);
  const through = use(lens);
  const toggle = (mark: number) => {
    const next = new Set(picked);
    if (!next.delete(mark)) next.add(mark);
    chosen.value = next;
  };
  return html`<div class="legend">
    <div class="segments" role="group" aria-label="Shown of each device">
      ${LENSES.map((each) => html`<button type="button" aria-pressed=${through === each} onClick=${() => {
        lens.value = each;
        chosen.value = new Set();
      }}>${LENS_WORDS[each]}</button>`)}
    </div>
    <ul aria-label="How many are how">
      ${MARKS.map((mark, place) =>
        (numbers[place] ?? 0) > 0 || picked.has(place)
          ? html`<li key=${mark.name}><button type="button" class="chip" aria-pressed=${picked.has(place)} onClick=${() => toggle(place)}>
              <${Glyph} mark=${place} />${mark.name} <b>${(numbers[place] ?? 0).toLocaleString("en")}</b>
            </button></li>`
          : null,
      )}
      ${picked.size > 0 && html`<li key="all"><button type="button" class="plain" onClick=${() => (chosen.value = new Set())}>Show all</button></li>`}
    </ul>
  </div>`;
}

render(html`<${App} />`, document.getElementById("app") as HTMLElement);
call<Me>("/api/session").then(
  (found) => (me.value = found),
  () => (me.value = null),
);
